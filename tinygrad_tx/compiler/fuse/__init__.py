"""Fusion: the nodes of a lowered graph become calls of kernels.

fuser.py takes nodes in the order of order.py, group.py is a row program in the making,
reductions.py places reductions, symbolic.py calls the forwards of op records on symbols, emit.py
has the kernels that are no row programs.
"""
