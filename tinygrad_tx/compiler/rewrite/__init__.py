"""Rewriting of graphs: rules that match Nodes (engine.py), on the machinery of which lift/
recognises idioms, simplify.py takes away what changes nothing, and cse.py computes once what is
said twice.
"""
