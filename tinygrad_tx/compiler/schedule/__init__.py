"""Scheduling: what runs when, and in which memory. A file for each stage of pipeline.py: outputs,
epilogues, chunked_loss, prepack, in_place, waves, memory. records.py has the values that stages
hand on, layout.py the strides.
"""
