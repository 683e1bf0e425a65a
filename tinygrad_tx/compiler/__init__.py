"""Floor 4: tx.compile. compiled.py is what users call; capture/ records a call, pipeline.py lists
the stages from the record to a plan (rewrite/, lower/, fuse/, schedule/), run/ runs it, inspect/
shows it.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .compiled import MAX_PLANS, Compiled, compile
from .rewrite.registered import forget_rule, register_rule, replace
from .rewrite.simplify import number

if TYPE_CHECKING:
    from .inspect.rule_check import check_rule
else:
    __getattr__, __dir__ = lazily(__name__, {"inspect.rule_check": "check_rule"})

__all__ = [
    "MAX_PLANS",
    "Compiled",
    "check_rule",
    "compile",
    "forget_rule",
    "number",
    "register_rule",
    "replace",
]
