"""The command line: program.py reads it, each other file is one command, but for
command.py, bulk.py and streams.py."""

from .program import main

__all__ = ["main"]
