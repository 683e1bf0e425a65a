"""Fusion: the nodes of a lowered graph become calls of kernels.

fuse.py is the stage. decide.py says what becomes of a node (decisions.py), with reductions.py,
read.py (how a group gets at an operand) and cost.py, which only look at what is known so far
(values.py); build.py and emit/ (kernels that are no row programs) add to it. body.py then writes
each group (group.py) as instructions: symbolic.py calls the forwards of op records on symbols.
limits.py has all thresholds.
"""
