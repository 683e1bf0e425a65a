"""Philox 4x32-10 in Python's numbers: what the backends' random bits are compared with."""

from __future__ import annotations

LOW = 0xFFFFFFFF


def philox(counter: list[int], key: list[int]) -> list[int]:
    """The cipher as the paper writes it: four counter words, two key words."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW
    return [c0, c1, c2, c3]


def reference(seed: int, stream: int, elements: range) -> list[int]:
    """Words of a stream, one at a time."""
    split = [seed & LOW, seed >> 32 & LOW]
    return [
        philox([i // 4 & LOW, i // 4 >> 32, stream & LOW, stream >> 32 & LOW], split)[i % 4]
        for i in elements
    ]
