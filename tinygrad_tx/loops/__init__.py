"""Loops: scan.py and checkpoint.py are what users call. While a function is traced, round.py makes
a graph of theirs, record.py a node that runs it again and again, gradient.py that node's gradient.
"""
