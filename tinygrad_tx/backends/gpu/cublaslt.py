"""cuBLASLt: products by NVIDIA's library, where it is installed and agrees with ours.

In: a Gemm kernel and the words of a call. Out: the product, on a stream. `fits` is the rule which
calls may be the library's: target.py asks it. FastPath says whether they are: what launches kernels
asks that; all others are our own code's. The addresses of a call are fixed when it is made: a CUDA
graph that holds one is captured anew when they change. The order of the library's sums depends on
the sizes of a product.

Written from the documented C interface (cublasLt.h of CUDA 12 and 13), and tested with a stand-in
for the library. It has never been run on a GPU.

The library's matrices have columns side by side and ours rows, so it is asked for the transposed
product: c^T (n, m) = b^T (n, k) a^T (k, m).
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ... import settings
from ...dtypes import ALL
from ...errors import UserError
from ..kernels.arguments import read
from ..kernels.kinds import Gemm
from .shared_tiles import how
from .thread import PIECE

Array = NDArray[Any]

_LEAST = 2**27  # multiplications: with fewer, a call of the library costs more than it may save
_NARROW = 64  # rows, columns and products of a sum: with fewer, our tiles fit better

# The rule ----------------------------------------------------------------------------------------


def wanted() -> bool:
    """False where TX_CUBLASLT=0: all products are our own code's, whose sums have one order for
    every size, batch and version of the library. UserError where it is no number of these."""
    text = settings.get("TX_CUBLASLT") or "1"
    if text not in ("0", "1"):
        raise UserError(f"TX_CUBLASLT={text}: it must be 0 or 1")
    return text == "1"


def fits(kernel: Gemm, words: Sequence[int], state: bool = False) -> bool:
    """True if a call is the library's, where there is one: a large product of 16-bit numbers or of
    tf32, aligned to 16 bytes, whose matrices lie at equal distances. Addresses are offsets of what
    is aligned. The sizes are guesses until a GPU has been asked.

    state: True if c is state. Our kernels do nothing once an index was outside, and the library
    does not know of it: so it may write the arena, where nothing outlives a run, and new results,
    which nobody reads after such a run, but never over state.
    """
    args, at = read(kernel.layout, words), kernel.layout
    if state or kernel.exact or min(args.m, args.n, args.k) < _NARROW or not args.b0 * args.b1:
        return False
    if args.b0 * args.b1 * args.m * args.n * args.k < _LEAST:
        return False
    sides = how(kernel, words, at.a, first=True), how(kernel, words, at.b, first=False)
    # Rows that overlap are no matrix of the library's.
    apart = ((args.a, (args.k, args.m)), (args.b, (args.n, args.k)))
    if any(max(x.row, x.column) < extents[x.column != 1] for x, extents in apart):
        return False
    steps = [args.c.row, *(s for s, n in ((args.c.b0, args.b0), (args.c.b1, args.b1)) if n > 1)]
    c = [args.c.place, *(step * ALL[kernel.out].itemsize for step in steps)]
    aligned = all(side.size == PIECE for side in sides) and all(n % PIECE == 0 for n in c)
    return aligned and None not in (_batch(args, x) for x in (args.a, args.b, args.c))


def _batch(args: Any, x: Any) -> int | None:
    """The distance from each matrix of an operand to the next; None where there is not just one."""
    if args.b1 == 1:
        return int(x.b0)
    return int(x.b1) if args.b0 == 1 or x.b0 == args.b1 * x.b1 else None


# The library -------------------------------------------------------------------------------------


class _Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = (("data", c_uint64 * 8),)


class _Found(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", _Algorithm),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


_NEW, _SET = POINTER(c_void_p), (c_void_p, c_int, c_void_p, c_size_t)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_NEW,),
    "cublasLtMatmulDescCreate": (_NEW, c_int, c_int),
    "cublasLtMatmulDescSetAttribute": _SET,
    "cublasLtMatrixLayoutCreate": (_NEW, c_int, c_uint64, c_uint64, c_int64),
    "cublasLtMatrixLayoutSetAttribute": _SET,
    "cublasLtMatmulPreferenceCreate": (_NEW,),
    "cublasLtMatmulPreferenceDestroy": (c_void_p,),
    "cublasLtMatmulPreferenceSetAttribute": _SET,
    "cublasLtMatmulAlgoGetHeuristic": (
        *(c_void_p,) * 7,  # handle, descriptor, layouts of a, b, c and d, preference
        *(c_int, POINTER(_Found), POINTER(c_int)),
    ),
    "cublasLtMatmul": (
        *(c_void_p,) * 3,  # handle, descriptor, alpha
        *(c_void_p,) * 4,  # a and its layout, b and its layout
        *(c_void_p,) * 5,  # beta, c and its layout, d and its layout
        *(POINTER(_Algorithm), c_void_p, c_size_t, c_void_p),  # .., workspace, its bytes, stream
    ),
}
_TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType
_FLOAT32, _TF32 = 68, 77  # cublasComputeType_t: CUBLAS_COMPUTE_32F, ..._FAST_TF32
_TURNED = 1  # CUBLAS_OP_T
_TURN_A, _TURN_B = 3, 4  # of cublasLtMatmulDescAttributes_t
_COUNT, _DISTANCE = 5, 6  # of cublasLtMatrixLayoutAttribute_t: of a batch
_WORKSPACE, _ALIGNMENTS = 1, (5, 6, 7, 8)  # of cublasLtMatmulPreferenceAttributes_t
_NOT_SUPPORTED = 15
_STATUS = {
    1: "is not initialized",
    3: "could not allocate",
    7: "was given an invalid value",
    8: "does not know this architecture",
    13: "could not run",
    14: "failed inside",
    _NOT_SUPPORTED: "does not support it",
}


class CublasLtError(RuntimeError):
    """A call of the library that failed. status: its cublasStatus_t."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} {_STATUS.get(status, f'gave status {status}')}")
        self.status = status


@cache
def find() -> Any:
    """The library, as CuPy has loaded it, as it is on the loader's path, or as NVIDIA's packages
    bring it; None where it is not there."""
    for name in (*_names(), *_packaged()):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _names() -> tuple[str, ...]:
    if sys.platform == "win32":
        return "cublasLt64_13.dll", "cublasLt64_12.dll"
    return "libcublasLt.so.13", "libcublasLt.so.12"


def _packaged() -> Iterator[str]:
    spec = find_spec("nvidia")
    for place in (spec.submodule_search_locations if spec else None) or ():
        for name in _names():
            yield from map(str, sorted(Path(place).rglob(name)))


class _Plan(NamedTuple):
    """How the library makes a product: its descriptors, and what it has chosen."""

    descriptor: Any
    layouts: tuple[Any, Any, Any]  # of its a, b and c
    algorithm: _Algorithm
    workspace: int


class CublasLt:
    """The library. workspace: bytes that it may use beside the operands."""

    def __init__(self, library: Any, workspace: int) -> None:
        self._functions = {name: getattr(library, name) for name in _FUNCTIONS}
        for name, types in _FUNCTIONS.items():
            self._functions[name].argtypes, self._functions[name].restype = types, c_int
        self._workspace = workspace
        self._plans: dict[Any, _Plan | None] = {}
        self._handle = self._new("cublasLtCreate")

    def _call(self, name: str, *args: Any) -> None:
        status = self._functions[name](*args)
        if status:
            raise CublasLtError(name, status)

    def _new(self, name: str, *args: Any) -> Any:
        made = c_void_p()
        self._call(name, byref(made), *args)
        return made

    def _set(self, kind: str, of: Any, attribute: int, value: Any) -> None:
        name = f"cublasLt{kind}SetAttribute"
        self._call(name, of, attribute, byref(value), ctypes.sizeof(value))

    def knows(self, kernel: Gemm, words: Sequence[int]) -> bool:
        """True if it can make a product that fits()."""
        return self._plan(kernel, words) is not None

    def run(self, kernel: Gemm, words: Sequence[int], workspace: int, stream: int) -> None:
        """Make a product that it knows. workspace: an address."""
        args, plan = read(kernel.layout, words), self._plan(kernel, words)
        assert plan is not None
        one, beta = c_float(1.0), c_float(float(kernel.accumulate))
        (a, b, c), out = plan.layouts, args.c.place
        self._call(
            "cublasLtMatmul",
            *(self._handle, plan.descriptor, byref(one)),
            *(args.b.place, a, args.a.place, b),
            *(byref(beta), out, c, out, c),
            *(byref(plan.algorithm), workspace, plan.workspace, stream),
        )

    def _plan(self, kernel: Gemm, words: Sequence[int]) -> _Plan | None:
        """None where the library knows no way."""
        args = read(kernel.layout, words)
        operands = tuple(x._replace(place=0) for x in (args.a, args.b, args.c))
        key = kernel, args[:5], operands
        if key not in self._plans:
            try:
                self._plans[key] = self._made(kernel, args)
            except CublasLtError as error:
                if error.status != _NOT_SUPPORTED:
                    raise
                self._plans[key] = None
        return self._plans[key]

    def _made(self, kernel: Gemm, args: Any) -> _Plan | None:
        compute = _TF32 if kernel.tf32 else _FLOAT32
        descriptor = self._new("cublasLtMatmulDescCreate", compute, _TYPES["float32"])
        # Its a is our b, and the other way round. Either is turned where our columns, which are its
        # rows, do not lie side by side.
        layouts = []
        for of, extents, turn in (
            (args.b, (args.n, args.k), _TURN_A),
            (args.a, (args.k, args.m), _TURN_B),
        ):
            straight = of.column == 1
            rows, columns = extents if straight else extents[::-1]
            if not straight:
                self._set("MatmulDesc", descriptor, turn, c_int(_TURNED))
            step = max(of.row, of.column)
            layouts.append(self._layout(kernel.dtype, rows, columns, step, args, of))
        layouts.append(self._layout(kernel.out, args.n, args.m, args.c.row, args, args.c))
        found = self._chosen(descriptor, layouts)
        if found is None:
            return None
        return _Plan(descriptor, tuple(layouts), found.algorithm, found.workspace)

    def _layout(self, dtype: str, rows: int, columns: int, step: int, args: Any, of: Any) -> Any:
        """step: from one column to the next."""
        made = self._new("cublasLtMatrixLayoutCreate", _TYPES[dtype], rows, columns, step)
        if args.b0 * args.b1 > 1:
            self._set("MatrixLayout", made, _COUNT, c_int(args.b0 * args.b1))
            self._set("MatrixLayout", made, _DISTANCE, c_int64(_batch(args, of) or 0))
        return made

    def _chosen(self, descriptor: Any, layouts: Sequence[Any]) -> _Found | None:
        """What the library thinks best."""
        wish = self._new("cublasLtMatmulPreferenceCreate")
        try:
            self._set("MatmulPreference", wish, _WORKSPACE, c_uint64(self._workspace))
            for alignment in _ALIGNMENTS:  # it would take them to be aligned to 256 bytes
                self._set("MatmulPreference", wish, alignment, c_uint32(PIECE))
            found, count = _Found(), c_int()
            a, b, c = layouts
            self._call(
                "cublasLtMatmulAlgoGetHeuristic",
                *(self._handle, descriptor, a, b, c, c, wish),
                *(1, byref(found), byref(count)),
            )
        finally:
            self._call("cublasLtMatmulPreferenceDestroy", wish)
        return found if count.value and not found.state else None


# Where it is taken -------------------------------------------------------------------------------


class Device(Protocol):
    """A device on which both the library and our kernels run."""

    @property
    def stream(self) -> int:
        """Where they run."""

    @property
    def workspace(self) -> int:
        """The address of memory for the library, the same at all times."""

    @property
    def workspace_size(self) -> int:
        """Its bytes."""

    def put(self, array: Array) -> Any:
        """A copy in the device's memory, as `get` and `address` take it."""

    def address(self, held: Any) -> int:
        """Where it lies."""

    def get(self, held: Any) -> Array:
        """What lies there, when all that was begun has ended."""

    def run(self, kernel: Gemm, words: Sequence[int]) -> None:
        """The product by our own kernel, whatever the device's report says."""


class FastPath:
    """Which products are the library's on a device. find: gives the library, as find() does, when
    the first product wants it.

    Before the first product of a kind, it makes some that ours make as well. If they differ by more
    than rounding, or a call fails, all products are ours from then on, and one warning says so.
    """

    def __init__(self, device: Device, find: Callable[[], Any] = find) -> None:
        self._device, self._find = device, find
        self._lt: CublasLt | None = None
        self._agrees: dict[Gemm, bool] = {}
        self.off = ""  # why it is not used

    def takes(self, kernel: Gemm, words: Sequence[int]) -> bool:
        """True if `run` is to make this product, which fits()."""
        if self.off:
            return False
        try:
            if self._lt is None:
                library = self._find()
                if library is None:
                    self.off = "it is not installed"
                    return False
                self._lt = CublasLt(library, self._device.workspace_size)
            if kernel not in self._agrees:
                self._agrees[kernel] = self._is_close(kernel)
            return self._agrees[kernel] and self._lt.knows(kernel, words)
        except (CublasLtError, AttributeError) as error:
            self._stop(str(error))
            return False

    def run(self, kernel: Gemm, words: Sequence[int]) -> bool:
        """Make a product that it takes; False where the library fails, and it is to be ours."""
        assert self._lt is not None
        try:
            self._lt.run(kernel, words, self._device.workspace, self._device.stream)
        except CublasLtError as error:
            self._stop(str(error))
            return False
        return True

    def _stop(self, why: str) -> None:
        self.off = why
        warnings.warn(f"products are our own code's from now on: {why}", stacklevel=4)

    def _is_close(self, kernel: Gemm) -> bool:
        """Two products in each layout, by both."""
        assert self._lt is not None
        for turned in product((False, True), repeat=2):
            most = _Trial(kernel, turned).difference(self._device, self._lt)
            if not most <= 1:  # NaN, too
                differ = f"differ by {most:.3g} times what rounding may do"
                self._stop(f"cuBLASLt's products of {kernel.dtype} {differ}")
                return False
        return True


class _Trial:
    """A small product of random numbers. turned: True for an operand whose columns come first."""

    SIZES = 2, 1, 96, 160, 224  # b0, b1, m, n, k

    def __init__(self, kernel: Gemm, turned: Sequence[bool]) -> None:
        self.kernel, self.turned, rng = kernel, turned, np.random.default_rng(0)
        b0, _, m, n, k = self.SIZES
        of, out = ALL[kernel.dtype].np, ALL[kernel.out].np
        self.a, self.b = (rng.standard_normal(x).astype(of) for x in ((b0, m, k), (b0, k, n)))
        self.c = rng.standard_normal((b0, m, n)).astype(out)

    def difference(self, device: Device, lt: CublasLt) -> float:
        """The largest difference of both results, in parts of what rounding may do."""
        words, held = list(self.SIZES), []
        for x, turned in zip((self.a, self.b), self.turned, strict=True):
            x = np.ascontiguousarray(x.swapaxes(1, 2) if turned else x)
            rows, columns = x.shape[1:]
            held.append(device.put(x))
            steps = (1, columns) if turned else (columns, 1)
            words += [device.address(held[-1]), rows * columns, 0, *steps]
        found = []
        for ours in (False, True):
            c = device.put(self.c)
            rows, columns = self.c.shape[1:]
            call = [*words, device.address(c), rows * columns, 0, columns]
            if ours:
                device.run(self.kernel, call)
            else:
                lt.run(self.kernel, call, device.workspace, device.stream)
            found.append(device.get(c).astype(np.float64))
        return float(np.max(abs(found[0] - found[1]) / self._bound(found[1])))

    def _bound(self, result: Array) -> Array:
        """Of products of 10 bits, sums of k products, and the rounding of the result."""
        size = abs(self.a.astype(np.float64)) @ abs(self.b.astype(np.float64)) + abs(result)
        rounded = 2.0**-10 if self.kernel.tf32 else 0.0
        return (rounded + 2.0**-22 * self.SIZES[-1]) * size + ALL[self.kernel.out].eps * abs(result)
