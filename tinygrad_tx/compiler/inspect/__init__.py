"""Looking at what was compiled: explain.py, TX_DEBUG (debug.py) and TX_CHECK (check.py)."""
