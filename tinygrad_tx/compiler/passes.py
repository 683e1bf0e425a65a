"""passes: what happens to a recorded graph between trace and plan, in order.

Each is `roots -> roots`. lift recognises what was written by hand, simplify takes away what changes
nothing, share computes once what is said twice. What is dead needs no pass: it is not reached.
"""

from .lift import lift
from .rewrite import share
from .simplify import simplify

PASSES = (lift, simplify, share)
