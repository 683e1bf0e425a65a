"""Training: the description of a run (config.py, sections.py) and what carries it out."""
