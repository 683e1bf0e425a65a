"""The language of kernels: what a Kernel is, how it is shown, and what it means in NumPy."""
