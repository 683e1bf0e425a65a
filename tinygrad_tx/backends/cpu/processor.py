"""Processor: the vector width and the register tile that code is generated for."""

from __future__ import annotations

from dataclasses import dataclass

from ...dtypes import ALL


@dataclass(frozen=True)
class Processor:
    """bytes: of a vector register. triple, cpu and features are LLVM's names."""

    name: str  # "avx512", "avx2", "neon" or "plain"
    bytes: int
    triple: str = ""
    cpu: str = ""
    features: str = ""

    def lanes(self, dtype: str) -> int:
        """Elements of a float dtype in one register."""
        return self.bytes // ALL[dtype].itemsize

    def tile(self, dtype: str) -> tuple[int, int]:
        """Rows and columns (MR, NR) of the matrix product's register tile."""
        rows = {"avx512": 14, "avx2": 6, "neon": 8, "plain": 2}[self.name]
        vectors = {"avx512": 2, "avx2": 2, "neon": 3, "plain": 4 // self.lanes(dtype)}[self.name]
        return rows, vectors * self.lanes(dtype)
