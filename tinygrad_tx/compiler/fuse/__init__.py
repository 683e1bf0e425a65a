"""Fusion: the nodes of a lowered graph become calls of kernels.

fuse.py is the stage. decide.py makes the decision on a node (decisions.py), with reductions.py,
read.py (a group's access to operands) and cost.py, which only look at the Values so far
(values.py); build.py and emit/ (ops that are neither maps nor reductions) add to it. body.py then
writes each group (group.py) as instructions: symbolic.py calls the forwards of op records on
symbols. limits.py has all thresholds.
"""
