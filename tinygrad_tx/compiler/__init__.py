"""Floor 4: tx.compile. The stages are files: trace.py records a call, replay.py runs it."""

from .compiled import MAX_PLANS, Compiled, compile

__all__ = ["MAX_PLANS", "Compiled", "compile"]
