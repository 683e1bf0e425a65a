"""Lowering: composite ops become maps, reductions, products, attention and gathers (lower.py with
reductions.py, search.py, checked.py); a long sum of scalars becomes the sum of a row (sums.py).
"""
