"""Floor 4: tx.compile. compiled.py is what users call; capture/ records a call, pipeline.py lists
the stages from the record to a plan (rewrite/, lower/, fuse/, schedule/), run/ runs it, inspect/
shows it.
"""

from .compiled import MAX_PLANS, Compiled, compile

__all__ = ["MAX_PLANS", "Compiled", "compile"]
