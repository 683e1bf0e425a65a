"""A stand-in for cuBLASLt: C functions of its interface, which NumPy computes on the host's memory.

The declarations are the documented ones (cublasLt.h), written down here once more, so that what the
binding passes is read as the library would read it. What is missing, contradictory or not aligned
as was promised gives CUBLAS_STATUS_INVALID_VALUE.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_tx.backends.kernels.interpreter import view
from tinygrad_tx.backends.kernels.interpreter_math import tf32

DECLARATIONS = """
cublasLtCreate: handle*
cublasLtMatmulDescCreate: desc*, int, int
cublasLtMatmulDescSetAttribute: desc, int, void*, size_t
cublasLtMatrixLayoutCreate: layout*, int, uint64_t, uint64_t, int64_t
cublasLtMatrixLayoutSetAttribute: layout, int, void*, size_t
cublasLtMatmulPreferenceCreate: preference*
cublasLtMatmulPreferenceDestroy: preference
cublasLtMatmulPreferenceSetAttribute: preference, int, void*, size_t
cublasLtMatmulAlgoGetHeuristic: handle, desc, layout, layout, layout, layout, preference, int, \
result*, int*
cublasLtMatmul: handle, desc, void*, void*, layout, void*, layout, void*, void*, layout, void*, \
layout, algo*, void*, size_t, stream
"""
C_TYPES: dict[str, Any] = {
    "int": ctypes.c_int,
    "size_t": ctypes.c_size_t,
    "uint64_t": ctypes.c_uint64,
    "int64_t": ctypes.c_int64,
}
OK, INVALID, NOT_SUPPORTED = 0, 7, 15
DTYPES = {0: "float32", 2: "float16", 14: "bfloat16"}
COMPUTE_32F, COMPUTE_TF32 = 68, 77
ATTRIBUTES = {  # of each kind: by its number, its name and its C type
    "desc": {3: ("turn_a", "i4"), 4: ("turn_b", "i4")},
    "layout": {5: ("count", "i4"), 6: ("distance", "i8")},
    "preference": {
        1: ("workspace", "u8"),
        **{n: (f"aligned_{x}", "u4") for n, x in zip(range(5, 9), "abcd", strict=True)},
    },
}
ALGORITHM = bytes(range(64))
WORKSPACE = 4096  # bytes that the algorithm needs


class FakeCublasLt:
    """statuses: what functions return instead of doing anything. error: what is added to results.
    without: a function that it does not have. enqueue: what products are given to, as a stream is;
    without it they are made at once."""

    def __init__(
        self,
        statuses: dict[str, int] | None = None,
        error: float = 0.0,
        without: str = "",
        enqueue: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._enqueue = enqueue or (lambda work: work())
        self.products = 0  # that have been made
        self.statuses, self.error = statuses or {}, error
        self.calls: list[str] = []
        self.streams: set[int] = set()
        self._objects: dict[int, dict[str, Any]] = {}
        for line in DECLARATIONS.strip().splitlines():
            name, params = line.split(": ")
            if name != without:
                types = [C_TYPES.get(p, ctypes.c_void_p) for p in params.split(", ")]
                setattr(self, name, ctypes.CFUNCTYPE(ctypes.c_int, *types)(self._guarded(name)))

    def _guarded(self, name: str) -> Callable[..., int]:
        do = getattr(self, "_" + name.removeprefix("cublasLt"))

        def call(*args: Any) -> int:
            self.calls.append(name)
            if name in self.statuses:
                return self.statuses[name]
            try:
                do(*args)
            except (AssertionError, KeyError, TypeError):
                return INVALID
            return OK

        return call

    def _put(self, at: int, kind: str, **fields: Any) -> None:
        number = 0x1000 + len(self._objects)
        self._objects[number] = {"kind": kind, **fields}
        ctypes.c_void_p.from_address(at).value = number

    def _get(self, number: int, kind: str) -> dict[str, Any]:
        found = self._objects[number]
        assert found["kind"] == kind
        return found

    def _set(self, kind: str, of: int, attribute: int, place: int, size: int) -> None:
        name, type = ATTRIBUTES[kind][attribute]
        dtype = np.dtype(type)
        assert size == dtype.itemsize
        self._get(of, kind)[name] = int(np.frombuffer(ctypes.string_at(place, size), dtype)[0])

    # The functions -------------------------------------------------------------------------------
    def _Create(self, at: int) -> None:  # noqa: N802
        self._put(at, "handle")

    def _MatmulDescCreate(self, at: int, compute: int, scale: int) -> None:  # noqa: N802
        assert compute in (COMPUTE_32F, COMPUTE_TF32) and DTYPES[scale] == "float32"
        self._put(at, "desc", compute=compute, turn_a=0, turn_b=0)

    def _MatmulDescSetAttribute(self, *args: int) -> None:  # noqa: N802
        self._set("desc", *args)

    def _MatrixLayoutCreate(  # noqa: N802
        self, at: int, type: int, rows: int, columns: int, step: int
    ) -> None:
        assert step >= rows > 0 < columns
        shape = {"rows": rows, "columns": columns, "step": step}
        self._put(at, "layout", dtype=DTYPES[type], count=1, distance=0, **shape)

    def _MatrixLayoutSetAttribute(self, *args: int) -> None:  # noqa: N802
        self._set("layout", *args)

    def _MatmulPreferenceCreate(self, at: int) -> None:  # noqa: N802
        aligned = dict.fromkeys((f"aligned_{x}" for x in "abcd"), 256)
        self._put(at, "preference", workspace=0, **aligned)

    def _MatmulPreferenceDestroy(self, number: int) -> None:  # noqa: N802
        self._get(number, "preference")["kind"] = "destroyed"

    def _MatmulPreferenceSetAttribute(self, *args: int) -> None:  # noqa: N802
        self._set("preference", *args)

    def _MatmulAlgoGetHeuristic(  # noqa: N802
        self, handle: int, desc: int, *rest: int
    ) -> None:
        *layouts, preference, wanted, results, count = rest
        self._get(handle, "handle")
        self._agree(desc, *layouts)
        wish = self._get(preference, "preference")
        assert wanted == 1 and wish["workspace"] >= WORKSPACE
        self._promised = {x: wish[f"aligned_{x}"] for x in "abcd"}
        ctypes.memmove(results, ALGORITHM, 64)
        ctypes.c_size_t.from_address(results + 64).value = WORKSPACE
        ctypes.c_int.from_address(results + 72).value = OK
        ctypes.c_int.from_address(count).value = 1

    def _agree(self, desc: int, *numbers: int) -> list[dict[str, Any]]:
        """The layouts, which fit each other: column by column, (rows, k) times (k, columns)."""
        how = self._get(desc, "desc")
        a, b, c, d = layouts = [self._get(n, "layout") for n in numbers]
        (m, k), (k_too, n) = (
            (x["rows"], x["columns"])[:: -1 if how[turn] else 1]
            for x, turn in ((a, "turn_a"), (b, "turn_b"))
        )
        assert k == k_too and (m, n) == (c["rows"], c["columns"]) and c == d
        assert a["count"] == b["count"] == c["count"] and a["dtype"] == b["dtype"]
        assert (how["compute"] == COMPUTE_TF32) <= (a["dtype"] == "float32")
        return layouts

    def _Matmul(  # noqa: N802
        self, handle: int, desc: int, alpha: int, a: int, la: int, b: int, lb: int, *rest: Any
    ) -> None:
        beta, c, lc, d, ld, algorithm, workspace, size, stream = rest
        self._get(handle, "handle")
        how, layouts = self._get(desc, "desc"), self._agree(desc, la, lb, lc, ld)
        assert ctypes.string_at(algorithm, 64) == ALGORITHM and workspace and size >= WORKSPACE
        places = dict(zip("abcd", (a, b, c, d), strict=True))
        assert all(place % self._promised[x] == 0 for x, place in places.items()) and c == d
        left, right, old, out = (
            self._matrices(place, x) for place, x in zip(places.values(), layouts, strict=True)
        )
        if how["turn_a"]:
            left = left.swapaxes(1, 2)
        if how["turn_b"]:
            right = right.swapaxes(1, 2)
        rounded = how["compute"] == COMPUTE_TF32
        one, more = (ctypes.c_float.from_address(x).value for x in (alpha, beta))

        def make() -> None:
            x, y = left.astype(np.float32), right.astype(np.float32)
            found = one * (tf32(x) @ tf32(y) if rounded else x @ y)
            out[...] = found + (more * old.astype(np.float32) if more else 0) + self.error
            self.products += 1

        self._enqueue(make)
        self.streams.add(stream or 0)

    def _matrices(self, place: int, of: dict[str, Any]) -> Any:
        """(count, rows, columns)"""
        shape = of["count"], of["columns"], of["rows"]
        return view(place, of["dtype"], shape, (of["distance"], of["step"], 1)).swapaxes(1, 2)
