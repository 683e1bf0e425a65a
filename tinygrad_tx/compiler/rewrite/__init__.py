"""Rewriting of graphs: rules that match Nodes (engine.py), on the machinery of which lift/
recognises idioms, simplify.py takes away what changes nothing, and `share` computes once what is
said twice.
"""
