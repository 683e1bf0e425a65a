"""LLVM IR as text, and scalar functions in it: what code writers of every machine share."""
