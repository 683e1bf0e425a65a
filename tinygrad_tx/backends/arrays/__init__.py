"""The array namespaces that eager code runs on: `xp` of NumPy and of CuPy."""
