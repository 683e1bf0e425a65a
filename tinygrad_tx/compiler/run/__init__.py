"""Running a plan: execution.py with kernels (segment.py is one native call, ownership.py says what
may be written over, addresses.py where all lies, prepacked.py keeps packed weights, arena.py the
memory), replay.py op by op.
What both share of a call, its inputs and results, is recording.py.
"""
