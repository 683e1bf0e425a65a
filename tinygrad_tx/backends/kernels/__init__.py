"""The language of kernels: their kinds, their listing, and their meaning in NumPy."""
