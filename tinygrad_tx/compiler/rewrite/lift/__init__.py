"""Lifting: hand-written spellings of softmax, norms, losses (idioms.py), attention and GELU become
the ops that are known whole.
"""
