"""Kernels for a GPU: each written for one of its threads, as LLVM IR, which becomes PTX. The door
is target.py."""
