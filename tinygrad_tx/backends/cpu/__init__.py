"""The processor: LLVM IR written by Python, compiled in the process, run by a team of threads. No
part of it is imported before something is compiled."""
