"""Rewriting of graphs: rules that match Nodes (engine.py), on the machinery of which lift/
recognises idioms, simplify.py drops, merges and folds nodes, and cse.py eliminates common
subexpressions.
"""
