"""What a Tensor is to its user: dtypes, NumPy beside it, assignment, copies, conversion, errors."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import DTypeError, GradError, ShapeError

DTYPES = (tx.float64, tx.float32, tx.float16, tx.int64, tx.int32, tx.bool_)


# Promotion ----------------------------------------------------------------------------------------
# Rows and columns in the order of DTYPES, as PyTorch promotes Tensors that have dimensions.
_D, _F, _H, _L, _I, _B = DTYPES
TABLE = [
    [_D, _D, _D, _D, _D, _D],
    [_D, _F, _F, _F, _F, _F],
    [_D, _F, _H, _H, _H, _H],
    [_D, _F, _H, _L, _L, _L],
    [_D, _F, _H, _L, _I, _I],
    [_D, _F, _H, _L, _I, _B],
]


@pytest.mark.parametrize("i", range(6))
@pytest.mark.parametrize("j", range(6))
def test_promotion_of_tensors(i: int, j: int) -> None:
    a, b = tx.ones(2, dtype=DTYPES[i]), tx.ones(2, dtype=DTYPES[j])
    for f in (lambda a, b: a + b, lambda a, b: a * b, tx.maximum, lambda a, b: tx.cat([a, b])):
        assert f(a, b).dtype == TABLE[i][j]
    assert tx.where(tx.tensor([True, False]), a, b).dtype == TABLE[i][j]
    assert (a == b).dtype == (a <= b).dtype == tx.bool_
    both = TABLE[i][j]
    assert (a / b).dtype == (both if both.is_floating_point else tx.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_and_0d_tensors_are_weak(dtype: tx.DType) -> None:
    x = tx.ones(2, dtype=dtype)
    integral = tx.int64 if dtype == tx.bool_ else dtype
    floating = dtype if dtype.is_floating_point else tx.float32
    for scalar in (True, np.True_):
        assert (x + scalar).dtype == (scalar + x).dtype == dtype
    for scalar in (3, np.int32(3), np.int64(3)):
        assert (x + scalar).dtype == (scalar + x).dtype == integral
    for scalar in (2.5, np.float64(2.5), np.float16(2.5)):
        for result in (x * scalar, scalar * x, x / scalar, scalar / x, x - scalar, scalar - x):
            assert isinstance(result, tx.Tensor) and result.dtype == floating
    for other in DTYPES:
        same_kind = other.kind == dtype.kind or TABLE[DTYPES.index(dtype)][DTYPES.index(other)]
        zero_d = tx.ones((), dtype=other)
        want = dtype if same_kind is True or same_kind.kind == dtype.kind else other
        assert (x + zero_d).dtype == (zero_d + x).dtype == want
        assert (zero_d + tx.ones((), dtype=dtype)).dtype == TABLE[DTYPES.index(dtype)][
            DTYPES.index(other)
        ]


def test_integers_divide_to_float32() -> None:
    x = tx.tensor([1, 2])
    for result in (x / 2, 1 / x, x / x, x / x.int(), True / x, x / np.array([2]), x.reciprocal()):
        assert result.dtype == tx.float32
    assert (x / 2).tolist() == [0.5, 1] and (x // 2).dtype == tx.int64 and (x / 2.0).dtype == _F
    odd = tx.tensor([7, -7])
    assert (odd // 2).tolist() == [3, -4] and (odd % 3).tolist() == [1, 2]
    assert (7 // tx.tensor([2])).item() == 3 and (7 % tx.tensor([4])).item() == 3


NAMES = ["add", "sub", "mul", "truediv", "pow", "lt", "ge", "eq", "matmul"]


@pytest.mark.parametrize("name", NAMES)
def test_numpy_arrays_on_either_side(name: str) -> None:
    f = getattr(operator, name)
    rng = np.random.default_rng(0)
    array, values = rng.random((2, 3, 3))
    t = tx.tensor(values)
    for got, want in ((f(t, array), f(values, array)), (f(array, t), f(array, values))):
        assert isinstance(got, tx.Tensor)
        np.testing.assert_allclose(got.numpy(), want)
    narrow = tx.tensor(values.astype(np.float32))
    if name == "matmul":
        with pytest.raises(DTypeError, match="a is float32, b is float64"):
            f(narrow, array)
    elif name not in ("lt", "ge", "eq"):
        assert f(narrow, array).dtype == f(array, narrow).dtype == tx.float64  # arrays keep theirs


def test_bools_add_and_multiply_as_logic() -> None:
    a, b = tx.tensor([True, True, False]), tx.tensor([True, False, False])
    assert (a + b).tolist() == (a | b).tolist() == [True, True, False]
    assert (a * b).tolist() == (a & b).tolist() == (True * a * b).tolist() == [True, False, False]
    assert (~a).tolist() == (a ^ True).tolist() == a.logical_not().tolist() == [False, False, True]
    for wrong in (lambda: a - b, lambda: -a, lambda: a.relu()):
        with pytest.raises(DTypeError, match="needs numbers, not bool"):
            wrong()


def test_comparison_with_something_else() -> None:
    x = tx.tensor([1.0, 2.0])
    assert (x == None) is False and (x != "name") is True  # noqa: E711
    assert x in [None, x] and [None, "a"].count(x) == 0
    assert 2 in x and 3 not in x and len({x, x.clone(), x}) == 2
    for wrong in (lambda: x + "a", lambda: x + None, lambda: x * [1, 2], lambda: x < "a"):
        with pytest.raises(DTypeError, match=r"is no number: wrap data in tx.tensor\(...\)"):
            wrong()


# Mutation and aliasing ----------------------------------------------------------------------------

VIEWS: dict[str, Callable[[tx.Tensor], tx.Tensor]] = {
    "slice": lambda x: x[1:],
    "whole slice": lambda x: x[:],
    "ellipsis": lambda x: x[...],
    "nothing": lambda x: x[()],
    "row": lambda x: x[0],
    "backwards": lambda x: x[::-1],
    "gather": lambda x: x[[0, 1]],
    "mask": lambda x: x[tx.tensor([True, True])],
    "reshape": lambda x: x.reshape(3, 2),
    "same shape": lambda x: x.reshape(2, 3),
    "view": lambda x: x.view(-1),
    "flatten": lambda x: x.flatten(),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "transpose": lambda x: x.T,
    "permute": lambda x: x.permute(0, 1),
    "expand": lambda x: x.expand(2, 3),
    "broadcast_to": lambda x: x.broadcast_to((4, 2, 3)),
    "flip": lambda x: x.flip(0),
    "split": lambda x: x.split(2)[0],
    "chunk": lambda x: x.chunk(1)[0],
    "iteration": lambda x: next(iter(x)),
    "contiguous": lambda x: x.contiguous(),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "cat": lambda x: tx.cat([x]),
    "tensor": lambda x: tx.tensor(x),
    "assigned": lambda x: tx.zeros(2, 3).assign(x),
    "clip": lambda x: x.clip(),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("grad", [False, True])
def test_results_never_alias(name: str, grad: bool) -> None:
    x = tx.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=grad)
    y = VIEWS[name](x)
    before, seen = y.tolist(), x.numpy()
    with tx.no_grad():
        x += 10
        x[0, 0] = -1.0
    assert y.tolist() == before
    now = x.tolist()
    with tx.no_grad():
        y *= 100
        y[...] = 7.0
    assert x.tolist() == now and seen.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert x.requires_grad == grad


def test_views_of_leaves_are_recorded() -> None:
    for name, view in VIEWS.items():
        x = tx.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
        y = view(x)
        if name in ("detach", "tensor"):
            assert not y.requires_grad
            continue
        y += 1  # no leaf: may be changed, and leads back to x
        (y * y).sum().backward()
        assert x.grad is not None and y.grad is None, name


def test_in_place_operators_keep_the_handle() -> None:
    x = tx.tensor([1.0, 2.0])
    same, alias = x, x.detach()
    x += 1
    x -= 0.5
    x *= 4
    x /= 2
    assert x is same and x.tolist() == [3, 5] and alias.tolist() == [1, 2]
    x += tx.tensor([1.0, 2.0], dtype=tx.float64)
    assert x.dtype == tx.float32


def test_in_place_operators_hold_shape_and_kind() -> None:
    n, x = tx.tensor([1, 2]), tx.ones(3)
    with pytest.raises(DTypeError, match=r"Tensor of int64 cannot hold .* float32 in place"):
        n += 0.5
    with pytest.raises(DTypeError, match="in place: write x = x"):
        n /= 2
    with pytest.raises(ShapeError, match=r"assign: a value \(2, 3\) does not fit a Tensor \(3,\)"):
        x += tx.ones(2, 3)
    n *= 3
    assert n.tolist() == [3, 6] and x.tolist() == [1, 1, 1]


def test_assign() -> None:
    x = tx.zeros(2, 3)
    assert x.assign(tx.tensor([1, 2, 3])) is x  # broadcast, in x's dtype
    assert x.dtype == tx.float32 and x.tolist() == [[1, 2, 3]] * 2
    assert x.assign(5).sum().item() == 30 and x.assign(np.ones((2, 1))).sum().item() == 6
    assert x.assign([[1, 2, 3], [4, 5, 6]])[1, 2].item() == 6
    for wrong in (tx.ones(2), tx.ones(1, 2, 3), [1.0, 2.0]):
        with pytest.raises(ShapeError, match="assign"):
            x.assign(wrong)


# NumPy and DLPack ---------------------------------------------------------------------------------


def test_numpy_is_read_only_and_stays() -> None:
    x = tx.tensor([1.0, 2.0])
    seen = x.numpy()
    with pytest.raises(ValueError, match="read-only"):
        seen[0] = 5
    x += 1
    x[0] = 9.0
    assert seen.tolist() == [1, 2] and x.numpy().tolist() == [9, 3]
    assert np.shares_memory(seen, seen.view()) and np.shares_memory(x.numpy(), x.numpy())


def test_array_protocol() -> None:
    x = tx.tensor([1.0, 2.0])
    assert np.asarray(x).dtype == np.float32 and np.asarray(x, dtype=np.int64).tolist() == [1, 2]
    own = np.array(x)
    own[0] = 7
    assert x.tolist() == [1, 2] and np.stack([x, x]).shape == (2, 2)
    assert np.shares_memory(np.asarray(x, copy=False), x.numpy())
    with pytest.raises(ValueError, match="float32 is no array of int64 without a copy"):
        np.asarray(x, dtype=np.int64, copy=False)


def test_data_is_copied_in() -> None:
    array = np.ones(3)
    x = tx.tensor(array)
    array[0] = 5
    assert x.tolist() == [1, 1, 1] and x.dtype == tx.float64
    x[:] = array
    y = tx.zeros(3).assign(array)
    array[1] = 6
    assert x.tolist() == y.tolist() == [5, 1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dlpack_with_numpy(dtype: tx.DType) -> None:
    x = tx.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    array = np.from_dlpack(x.T)
    assert array.dtype == dtype.np and array.tolist() == x.T.tolist()
    array = array.copy()
    y = tx.from_dlpack(array)
    assert y.dtype == dtype and y.tolist() == x.T.tolist()
    assert np.shares_memory(y.numpy(), array)  # no copy


def test_what_dlpack_hands_out_is_its_receivers() -> None:
    x = tx.tensor([1.0, 2.0])
    array = np.from_dlpack(x)
    x += 1
    assert x.tolist() == [2, 3] and array.tolist() == [1, 2]
    assert not np.shares_memory(x.numpy(), np.from_dlpack(x))
    assert x.__dlpack_device__() == (1, 0)


def test_dlpack_with_torch() -> None:
    torch = pytest.importorskip("torch")
    x = tx.tensor([[1.0, 2.0], [3.0, 4.0]])
    there = torch.from_dlpack(x)
    there += 1
    assert there.tolist() == [[2, 3], [4, 5]] and x.tolist() == [[1, 2], [3, 4]]
    assert tx.from_dlpack(there.T).tolist() == [[2, 4], [3, 5]]


# Copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_of_leaves(make: Callable[[tx.Tensor], tx.Tensor]) -> None:
    for dtype in DTYPES:
        x = tx.tensor([[0, 1], [2, 3]]).to(dtype)[:, ::-1]
        y = make(x)
        assert y is not x and y.dtype == dtype and y.tolist() == x.tolist()
    x = tx.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = make(x)
    assert y.requires_grad and y.is_leaf and y.grad is not None and y.grad.tolist() == [2, 4]
    (y * 3).sum().backward()
    with tx.no_grad():
        y += 1
    assert x.tolist() == [1, 2] and y.grad.tolist() == [5, 7]


def test_deepcopy_keeps_what_is_shared() -> None:
    tied = tx.tensor([1.0])
    one, two = copy.deepcopy([tied, tied])
    assert one is two and one is not tied


def test_a_recorded_tensor_is_not_copied_with_its_history() -> None:
    y = tx.tensor(1.0, requires_grad=True) * 2
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(GradError, match=r"cannot be copied .* \.detach\(\) it first"):
            make(y)
    assert copy.deepcopy(y.detach()).item() == 2


# Looking at a Tensor ------------------------------------------------------------------------------


def test_repr() -> None:
    x = tx.tensor(2.0, dtype=tx.float64, requires_grad=True)
    assert repr(x.exp().exp()).endswith("dtype=tx.float64, op=exp)")
    assert len(repr(tx.zeros(100, 100))) < 400 and str(x) == repr(x)
    assert [repr(d) for d in (tx.float32, tx.bool_)] == ["tx.float32", "tx.bool_"]


def test_format() -> None:
    loss = tx.tensor(2.71828)
    assert f"{loss:.2f} {loss}" == "2.72 tensor(2.7183)" and f"{tx.tensor(7):03d}" == "007"


def test_numbers_of_a_tensor() -> None:
    x = tx.tensor([[3]])
    assert (x.item(), int(x), float(x), bool(x)) == (3, 3, 3.0, True)
    assert type(tx.tensor(1.5).item()) is float and type(tx.tensor(True).item()) is bool
    assert [10, 20, 30][tx.tensor(1)] == 20 and list(range(tx.tensor(2))) == [0, 1]
    assert tx.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]] and tx.tensor(5).tolist() == 5


def test_errors_of_conversion() -> None:
    x = tx.ones(2, 3)
    with pytest.raises(ShapeError, match=r"item\(\) of a Tensor \(2, 3\): it must have one"):
        x.item()
    with pytest.raises(ShapeError, match=r"truth of a Tensor \(2, 3\) .* use .any\(\) or .all\(\)"):
        bool(x)
    with pytest.raises(ShapeError):
        float(x)
    for wrong in (tx.tensor(1.0), tx.tensor([1]), tx.tensor(True)):
        with pytest.raises(TypeError, match="only a 0-d integer Tensor can be an index"):
            [1, 2][wrong]
    with pytest.raises(TypeError, match=r"len\(\) of a 0-d"):
        len(tx.tensor(1))
    with pytest.raises(TypeError):
        iter(tx.tensor(1))


def test_shape_and_iteration() -> None:
    x = tx.tensor(np.arange(6).reshape(2, 3))
    assert (x.shape, x.ndim, x.dim(), x.numel(), len(x)) == ((2, 3), 2, 2, 6, 2)
    assert x.size() == (2, 3) and x.size(-1) == 3
    a, b = x
    assert a.tolist() == [0, 1, 2] and b.tolist() == [3, 4, 5] and len(list(x.T)) == 3
    assert [*tx.zeros(0, 3)] == []


# Creation and conversion --------------------------------------------------------------------------


def test_tensor_takes_its_dtype_from_the_data() -> None:
    for data, dtype in (
        (1, tx.int64), (1.0, tx.float32), (True, tx.bool_), ([1, 2.5], tx.float32),
        ([], tx.float32), ([[True]], tx.bool_), (np.zeros(2), tx.float64),
        (np.zeros(2, "f4"), tx.float32),
        (np.int32(1), tx.int32), (np.float64(1), tx.float64), (tx.ones(2).half(), tx.float16),
        ([tx.tensor(1), tx.tensor(2)], tx.int64),
    ):  # fmt: skip
        assert tx.tensor(data).dtype == dtype, data
    assert tx.tensor([1, 2], dtype="float16").dtype == tx.float16
    assert tx.tensor([1.7], dtype=int).tolist() == [1]


def test_creation() -> None:
    assert tx.zeros(2, 3).shape == tx.ones((2, 3)).shape == tx.empty([2, 3]).shape == (2, 3)
    assert tx.zeros().shape == tx.ones(()).shape == () and tx.zeros(0, 2).numel() == 0
    assert tx.full((2,), 7).dtype == tx.int64 and tx.full(2, 0.5).tolist() == [0.5, 0.5]
    assert tx.full((), True).dtype == tx.bool_ and tx.zeros(1, dtype=tx.int32).dtype == tx.int32
    assert tx.arange(3).tolist() == [0, 1, 2] and tx.arange(1, 2, 0.5).tolist() == [1, 1.5]
    assert tx.arange(5, 0, -2).tolist() == [5, 3, 1] and tx.arange(3, 1).shape == (0,)
    assert tx.arange(3, dtype=tx.float16).dtype == tx.float16
    assert tx.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    x = tx.ones(2, 2, dtype=tx.float64)
    for like in (tx.zeros_like(x), tx.ones_like(x), tx.full_like(x, 3)):
        assert like.dtype == tx.float64 and like.shape == (2, 2)
    assert tx.zeros(2, requires_grad=True).requires_grad
    assert tx.ones(2, dtype=None).dtype == tx.float32
    assert tx.full(np.int64(2), 1.5).shape == tx.randint(0, np.int64(5), (2,)).shape == (2,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_triangles_keep_the_dtype(dtype: tx.DType) -> None:
    x = tx.ones(3, 3, dtype=dtype)
    for k in (-1, 0, 1):
        for ours, numpys in ((tx.tril, np.tril), (tx.triu, np.triu)):
            assert ours(x, k).dtype == dtype
            np.testing.assert_array_equal(ours(x, k).numpy(), numpys(x.numpy(), k))


def test_masked_fill_keeps_the_dtype_and_other_values() -> None:
    big = tx.tensor([2**53 + 1, 5])
    mask = tx.tensor([False, True])
    assert big.masked_fill(mask, 2.7).tolist() == [2**53 + 1, 2]
    big[mask] = 3.9
    assert big.tolist() == [2**53 + 1, 3]
    x = tx.ones(2, dtype=tx.float16).masked_fill(mask, -float("inf"))
    assert x.dtype == tx.float16 and x.tolist() == [1, -np.inf]
    assert x.masked_fill(mask, tx.tensor(2.5, dtype=tx.float64)).tolist() == [1, 2.5]
    assert tx.tensor([True, True]).masked_fill(mask, 0).dtype == tx.bool_


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tx.tensor([[1, 2], [3]]), ShapeError, "nested lists of unequal length"),
        (lambda: tx.tensor(1j), DTypeError, "no tensor dtype complex128"),
        (lambda: tx.tensor("text"), DTypeError, "no tensor dtype"),
        (lambda: tx.tensor(np.zeros(2, np.uint8)), DTypeError, "uint8: convert to int32"),
        (lambda: tx.zeros(2, -1), ShapeError, r"\(2, -1\) has a negative size"),
        (lambda: tx.ones(2).to("gpu"), DTypeError, r"to\('gpu'\): neither a device .* nor a dtype"),
        (lambda: tx.ones(2).to(None), DTypeError, r"to\(None\): neither"),
        (lambda: tx.ones(2, dtype="float33"), DTypeError, "dtype float33: convert to one"),
        (lambda: tx.arange(1, 5, 0), ShapeError, "the step must not be 0"),
        (lambda: tx.rand(2, dtype=tx.int64), DTypeError, "use randint for integers"),
        (lambda: tx.randint(3, 3, (2,)), ValueError, r"range \[3, 3\) is empty"),
        (lambda: tx.cat([]), ShapeError, "there is nothing to join"),
        (lambda: tx.cat([tx.tensor(1.0)]), ShapeError, "a 0-d Tensor has no dimension"),
        (lambda: tx.stack([tx.ones(2), tx.ones(3)]), ShapeError, r"shapes \(2,\) and \(3,\)"),
        (lambda: tx.tril(tx.ones(3)), ShapeError, r"need a matrix, not \(3,\)"),
        (lambda: tx.tensor([1, 2]).mean(), DTypeError, "mean needs a floating dtype"),
        (lambda: tx.ones(2, 3).sum(2), ShapeError, "sum: axis 2 is outside a Tensor of 2"),
        (lambda: tx.ones(2, 3).mean((0, 0)), ShapeError, "dimension twice"),
        (lambda: tx.ones(2, 3).reshape(4, -1), ShapeError, r"\(2, 3\) cannot become \(4, -1\)"),
        (lambda: tx.ones(2, 3).reshape(-1, -1), ShapeError, "cannot become"),
        (lambda: tx.ones(2, 3).reshape(7), ShapeError, r"has 6 elements, \(7,\) would have 7"),
        (lambda: tx.ones(2, 3).flatten(1, 0), ShapeError, "flatten: axis 1 comes after axis 0"),
        (lambda: tx.ones(3, 4).expand(-1, 3, 4), ShapeError, "expand: .* -1 in a new axis"),
        (lambda: tx.ones(3, 4).expand(2, 4), ShapeError, r"does not expand to \(2, 4\)"),
        (lambda: tx.ones(3, 4).expand(4), ShapeError, "does not expand"),
        (lambda: tx.ones(5).split([2, 2]), ShapeError, r"sizes \[2, 2\] do not make up 5"),
        (lambda: tx.ones(5).split([6, -1]), ShapeError, "do not make up 5"),
        (lambda: tx.ones(5).split(0), ShapeError, "split: a size of 0 must be positive"),
        (lambda: tx.ones(5).chunk(0), ShapeError, "chunk: 0 pieces"),
        (lambda: tx.ones(5).topk(6), ShapeError, r"topk: k = 6 does not fit axis 0 of \(5,\)"),
        (lambda: tx.ones(2, 3).permute(0), ShapeError, r"permute: \(0,\) does not name"),
        (lambda: tx.ones(2, 3).transpose(0, 2), ShapeError, "axis 2 is outside"),
        (lambda: tx.ones(2, 3).unsqueeze(4), ShapeError, "unsqueeze: axis 4 is outside"),
        (lambda: tx.ones(3) @ tx.ones(4), ShapeError, "matmul: the last axis of a"),
        (lambda: tx.tensor(2.0) @ tx.ones(4), ShapeError, "matmul"),
        (lambda: tx.ones(2) + tx.ones(3), ShapeError, r"add: shapes \(2,\) and \(3,\)"),
        (lambda: tx.tensor([1]).exp(), DTypeError, r"exp needs a floating dtype, not int64: use"),
    ],
)  # fmt: skip
def test_errors_in_one_line(make: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_to() -> None:
    x = tx.ones(2)
    assert x.to(tx.float32) is x and x.to("cpu") is x  # as PyTorch: itself where nothing changes
    assert x.to("float64").dtype == x.double().dtype == x.to(np.float64).dtype == tx.float64
    assert x.half().dtype == tx.float16 and x.long().dtype == tx.int64 and x.int().dtype == tx.int32
    assert x.bool().tolist() == [True, True] and tx.tensor([1.9, -1.9]).int().tolist() == [1, -1]
    assert x.to(int).dtype == tx.int64 and x.to(bool).dtype == tx.bool_ and x.to(float).dtype == _F


def test_where_and_clip_take_scalars() -> None:
    x = tx.tensor([-2.0, 0.5, 3.0])
    assert x.clip(-1, 1).tolist() == x.clamp(min=-1, max=np.float64(1)).tolist() == [-1, 0.5, 1]
    assert x.clip(max=0).dtype == tx.float32 and tx.tensor([5]).clip(0, 2).tolist() == [2]
    assert tx.where(x > 0, 1, 0).dtype == tx.int64 and tx.where(x > 0, x, 0).tolist() == [0, 0.5, 3]
    assert tx.where(np.array([True, False, True]), x, -x).tolist() == [-2, -0.5, 3]
