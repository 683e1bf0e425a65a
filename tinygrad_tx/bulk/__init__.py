"""Bulk work: something done to every line of a large input, by one process or by many.

In: rows (lines, pairs of lines), and a Work, which says what is done. Out: text, a line for a line
and in their order, and sums. Rows go in chunks (chunks.py) to an executor: this process (order.py),
or workers of Dask (cluster.py); order.py keeps a window of chunks at work, puts results in order
and has chunks done again whose worker died; journal.py keeps an output that can be gone on with.
The files beside these are the works. Called by the commands.

A chunk is a chunk wherever it is done, so what many processes find is what one finds, to the byte.
"""

from .chunks import Chunk, Result, Work, chunked
from .order import Executor, Here, WorkerLost, in_order

__all__ = ["Chunk", "Executor", "Here", "Result", "Work", "WorkerLost", "chunked", "in_order"]
