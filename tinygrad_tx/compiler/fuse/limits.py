"""Limits: the numbers by which fusing decides, with their units. CHUNK_ROWS and CHUNKS are
part of how a sum is added up; the others change no bit, but of 16-bit values, which are rounded
where they are stored.

Read as `limits.NAME`, so that tests can make them small. Set on the benchmarks W1, W2, W4 and
greedy decoding (benchmarks/).
"""

# Stored or computed again -----------------------------------------------------------------------
SMALL = 8192  # elements: such values are computed as soon as they can be, and stored at once
LARGER = 4096  # times: values that are so much smaller than the largest are computed early, too
CHEAP = 4  # map instructions: what takes no more is rather computed again than stored
CHAIN = 16  # map instructions: the same for one reader, which computes them instead of storing
LATE = 32  # map instructions: the most that are computed again in the place of a float32 value
# that is made of numbers of 16 bits (late.py)
FOLDED = 1 << 22  # elements: a larger value is not computed with the plan

# Size of a kernel -------------------------------------------------------------------------------
LONGEST = 512  # instructions and reads: a group that has more takes no other map
RECENT = 4  # groups along rows: so many of the newest are asked whether they take one more

# Tasks of a kernel ------------------------------------------------------------------------------
TASK_ELEMENTS = 16384  # elements: the most of a row program's task
TASK_LEAST = 256  # elements: so many it has, however costly they are
TASK_COST = 100_000  # additions: a task of costly elements has fewer; some 10 microseconds of work
TASK_COLUMNS = 256  # columns of a task of a reduction along rows
CHUNK_ROWS = 64  # rows: the fewest of one chunk of a reduction along rows
CHUNKS = 16  # chunks: the most of them
