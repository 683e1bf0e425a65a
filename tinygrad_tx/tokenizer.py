"""Shim while data/tokenizer.py moves here."""
from tinygrad_tx.data.tokenizer import *  # noqa
