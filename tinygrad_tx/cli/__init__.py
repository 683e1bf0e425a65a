"""The command line: program.py reads it, each other file but command.py is one command."""

from .program import main

__all__ = ["main"]
