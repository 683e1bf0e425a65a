"""The built-in corpus: English and Spanish sentences of a small grammar (grammar.py)."""
