"""Capture: a call of the user's function is recorded, and found again by its guards.

In: a function and its arguments. Out: a Traced call (trace.py), and for later calls whether it
serves them (guards.py). callables.py refuses anything but functions of Tensors.
"""
