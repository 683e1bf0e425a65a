"""A GPU on a processor: the kernels of backends/gpu/, each of their threads a coroutine of LLVM's.

`machine.py` runs a kernel, `thread.py` is the machine that the writers write it for. docs/gpu.md
says what this proves.
"""
