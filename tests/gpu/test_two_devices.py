"""Device "cuda" beside the CPU: what may be mixed and what is refused, in one line; values that go
from one library to another; random states; ops of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from device_case import DEVICES, default_device

import tinygrad_tx as tx
from tinygrad_tx import backends, nn, random, tree
from tinygrad_tx.errors import DeviceError
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def cuda(values: Any, dtype: str = "float32") -> tx.Tensor:
    return tx.tensor(np.asarray(values, dtype), device="cuda")


# What is refused -------------------------------------------------------------------------------

HERE, THERE = "one input is on (cuda|cpu), another on (cuda|cpu); move one with", "is on cuda"
MIXED: list[tuple[Callable[[tx.Tensor, tx.Tensor], Any], str]] = [
    (lambda x, y: x + y, f"^add: {HERE}"),
    (lambda x, y: x @ y.T, f"^matmul: {HERE}"),
    (lambda x, y: tx.where(x > 0, y, x), f"^where: {HERE}"),
    (lambda x, y: tx.cat([x, y]), f"^concat: {HERE}"),
    (lambda x, y: tx.stack([y, x]), f"^concat: {HERE}"),
    (lambda x, y: F.linear(x, y), f"^matmul: {HERE}"),
    (lambda x, y: F.embedding(y.long(), x), f"^take: {HERE}"),
    (lambda x, y: F.cross_entropy(x, y[:, 0].long()), f"^cross_entropy: {HERE}"),
    (lambda x, y: F.layer_norm(x, (2,), y[0]), f"^layer_norm: {HERE}"),
    (lambda x, y: F.scaled_dot_product_attention(x, x, x, y > 0), f"^attention: {HERE}"),
    (lambda x, y: F.conv1d(x, y.reshape(1, 2, 2)), HERE),
    (lambda x, y: x.gather(0, y.long()), f"^take_along: {HERE}"),
    (lambda x, y: x.__setitem__(0, y[0]), f"^slice_write: {HERE}"),
    (lambda x, y: nn.Linear(2, 2).to(y.device)(x), f"^matmul: {HERE}"),
    (lambda x, y: nn.GRU(2, 3).to(y.device)(x.reshape(1, 2, 2)), HERE),
    (lambda x, y: nn.MSELoss()(x, y), HERE),
    (lambda x, y: tx.scan(lambda c, row: (c + row, None), x[0], y), f"^add: {HERE}"),
    (lambda x, y: tx.compile(lambda a, b: a * b)(x, y), f"^mul: {HERE}"),
]


@pytest.mark.parametrize("call", MIXED)
def test_two_devices_in_one_op_are_refused(call: Any) -> None:
    for own, other in (DEVICES, DEVICES[::-1]):
        x, y = (tx.tensor([[0.0, 1], [1, 0]], device=device) for device in (own, other))
        with pytest.raises(DeviceError, match=call[1]) as raised:
            call[0](x, y)
        assert "\n" not in str(raised.value)
        assert x.tolist() == y.tolist() == [[0, 1], [1, 0]]


def test_a_model_is_moved_before_its_optimizer_is_made() -> None:
    for own, other in (DEVICES, DEVICES[::-1]):
        model = nn.Linear(2, 1).to(own)
        optimizer, ema = tx.optim.Adam(model.parameters()), tx.optim.EMA(model.parameters())
        model.to(other)
        model(tx.ones(1, 2, device=other)).sum().backward()
        before = model.weight.tolist()
        with pytest.raises(DeviceError, match=f"^Adam: the parameters are on {other}, .* on {own}"):
            optimizer.step()
        with pytest.raises(DeviceError, match=f"^EMA: the parameters are on {other}, .* on {own}"):
            ema.update()
        assert model.weight.tolist() == before and optimizer.step_count.item() == 0
        with pytest.raises(DeviceError, match=r"^SGD: parameters are on cpu and cuda; move"):
            tx.optim.SGD([model.weight, nn.Parameter(tx.ones(1, device=own))], lr=0.1)


# What is not -------------------------------------------------------------------------------------


def test_an_index_from_the_host() -> None:
    """Lists, arrays and masks choose and are written through on either device."""
    for index in ([1, 0], np.array([1]), np.array([True, False]), tx.tensor([False, True])):
        x, own = cuda([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]], np.float32)
        plain = index.numpy() if isinstance(index, tx.Tensor) else index
        np.testing.assert_array_equal(x[index].numpy(), own[plain])
        for value in (7.0, [8.0, 9.0]):
            x[index], own[plain] = value, value
            assert x.device == "cuda"
            np.testing.assert_array_equal(x.numpy(), own)


def test_a_gradient_from_another_device_is_refused() -> None:
    """Where nothing multiplies by it, it would arrive at the leaf."""
    for own, other in (("cpu", "cuda"), ("cuda", "cpu")):
        x = tx.ones(2, 2, device=own, requires_grad=True)
        with pytest.raises(DeviceError, match=rf"gradient= is on {other}, the Tensor on {own}; mo"):
            x.sum().backward(tx.tensor(1.0, device=other))
        assert x.grad is None


def test_assigning_moves() -> None:
    """A Tensor stays where it is, whatever is assigned to it; so do indices."""
    for own, other in (DEVICES, DEVICES[::-1]):
        x = tx.zeros(2, 2, device=own)
        assert x.assign(tx.ones(2, 2, device=other)).device == own and x.sum().item() == 4
        x[tx.tensor([1], device=other)] = 7.0
        x[tx.tensor([True, False], device=other)] = [5.0, 6.0]
        assert x.device == own and x.tolist() == [[5, 6], [7, 7]]


def test_moving() -> None:
    """There and back, with a gradient; what has merged adapters takes both weights along."""
    x = tx.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    there = x.to("cuda")
    assert there.device == "cuda" and (there * 2).to("cpu").tolist() == (x * 2).tolist()
    (there * there).sum().to("cpu").backward()
    assert x.grad is not None and x.grad.device == "cpu"
    assert x.grad.tolist() == (x * 2).tolist()
    model = nn.Sequential(nn.Linear(4, 3))
    adapters = nn.lora(model, 2, "*")
    nn.init.normal_(model[0].lora_b)
    before = model[0].weight.numpy()
    adapters.merge()
    model.to("cuda")
    adapters.unmerge()
    assert model[0].weight.device == "cuda"
    np.testing.assert_array_equal(model[0].weight.numpy(), before)
    assert "_plain" not in str(model.state_dict().keys())


def test_numbers_beside_tensors_lie_where_those_are() -> None:
    """Whatever the default device is: of a loop's carry and results, and a norm of no gradients."""
    xs = tx.ones(3, 2, device="cuda")
    for run in (tx.scan, tx.compile(tx.scan)):
        carry, ys = run(lambda c, x: (c + x.sum(), 3), 0.0, xs)
        assert carry.device == ys.device == "cuda"
        assert carry.item() == 6 and ys.tolist() == [3, 3, 3]
    norm = tx.optim.clip_grad_norm_([nn.Parameter(xs)], 1.0)
    assert norm.device == "cuda" and norm.item() == 0
    with default_device("cuda"):
        x = tx.ones(2, device="cpu")
        assert (x.masked_fill(x > 0, 2.0) * 3 - 1).softmax(0).device == "cpu"


def test_batches_lie_where_their_data_do() -> None:
    arrays = np.arange(12).reshape(6, 2), np.arange(6) % 2
    found = []
    for device in DEVICES:
        tensors = [tx.tensor(a, device=device) for a in arrays]
        pairs = [(x, {"y": y}) for x, y in zip(*tensors, strict=True)]
        for data in (tx.data.TensorDataset(*tensors), pairs):
            loader = tx.data.DataLoader(data, batch_size=4, shuffle=True, seed=3)
            batches = [x for batch in loader for x in tree.leaves(batch)]
            assert {x.device for x in batches} == {device}
            found.append([x.tolist() for x in batches])
    assert found[0] == found[1] == found[2] == found[3]


# Other libraries ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", list(tx.dtypes.ALL.values()), ids=lambda d: d.name)
def test_shared_memory(dtype: tx.DType) -> None:
    import cupy

    x = tx.tensor([[0, 1, 2], [3, 4, 5]], device="cuda").to(dtype)
    for given in (x, x.T):
        again = tx.from_dlpack(given)
        assert (again.device, again.dtype) == ("cuda", dtype) and again.tolist() == given.tolist()
    array = cupy.from_dlpack(x.T)
    assert array.dtype == dtype.np and array.tolist() == x.T.tolist()
    array[0] = 0
    assert x.tolist() == tx.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype).tolist()  # a copy of its own
    shared = tx.from_dlpack(array)
    assert shared.device == "cuda" and shared.dtype == dtype
    assert tx.from_dlpack(array, copy=True, device="cpu").tolist() == shared.tolist()
    with pytest.raises(DeviceError, match="data on cuda are on cpu only as a copy"):
        tx.from_dlpack(array, device="cpu", copy=False)
    if dtype != tx.bfloat16:
        host = tx.from_dlpack(np.array([1, 0], dtype.np), device="cuda")
        assert host.device == "cuda" and host.tolist() == [1, 0]


# Random numbers ----------------------------------------------------------------------------------


def test_random_bits_are_those_of_the_cpu() -> None:
    found = []
    for device in DEVICES:
        tx.manual_seed(11)
        ones = tx.ones(7, 33, device=device)
        drawn = [F.dropout(ones, 0.1), F.dropout(ones, 0.5), tx.rand(5, 13, device=device)]
        drawn += [tx.randint(0, 1000, (97,), device=device), tx.randperm(50, device=device)]
        found.append([x.numpy() for x in drawn])
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here, there)


def test_states_of_the_generator() -> None:
    """A state goes on on either device; one that counted each device apart does so again."""
    wanted = []
    for stream in (3, 9):
        random.set_state({"cpu": (5, stream)})
        wanted.append(tx.rand(4).tolist())
    random.set_state({"cpu": (5, 3)})
    assert tx.rand(4, device="cuda").tolist() == wanted[0]
    assert random.get_state() == {"cpu": (5, 4)}
    random.set_state({"cpu": (5, 9), "cuda": (5, 3)})
    assert tx.rand(4, device="cuda").tolist() == wanted[0] and tx.rand(4).tolist() == wanted[1]
    assert random.get_state() == {"cpu": (5, 10), "cuda": (5, 4)}
    tx.manual_seed(0)
    assert random.get_state() == {"cpu": (0, 0)}


# Ops of one's own --------------------------------------------------------------------------------

GROWN = tx.Op("two_devices_grown", kind="map", forward=lambda xp, x, by: x * by,
              vjp=lambda g, y, x, by: (g * by,))  # fmt: skip


def _doubles(xp: Any, x: Any) -> Any:
    x *= 2
    return x


DOUBLES = tx.Op("two_devices_doubles", kind="opaque", forward=_doubles, rule=lambda op, x: x.spec)


def test_a_number_that_is_a_tensor() -> None:
    x = cuda([1.0, 2.0]).requires_grad_()
    y = GROWN(x, by=tx.tensor(3.0, device="cuda"))
    y.sum().backward()
    assert y.device == "cuda" and y.tolist() == [3, 6] and x.grad.tolist() == [3, 3]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_forward_cannot_change_its_inputs(compiled: bool) -> None:
    """Of a GPU's memory nothing is read-only: it gets a copy, and writes to that."""
    x = cuda([1.0, 2.0])
    call = tx.compile(lambda x: DOUBLES(x)) if compiled else DOUBLES
    for _ in range(2):
        assert call(x).tolist() == [2, 4] and x.tolist() == [1, 2]


@pytest.mark.parametrize("made", [None, "text", [1, None]], ids=repr)
def test_a_forward_is_held_to_its_rule(made: Any) -> None:
    junk = tx.Op("two_devices_junk", kind="map", forward=lambda xp, x: made)
    with pytest.raises(tx.errors.ShapeError, match=r"^two_devices_junk: the forward made object"):
        junk(cuda([1.0]))


def test_empty_arrays() -> None:
    x = tx.zeros(0, 3, device="cuda")
    assert x.sum().item() == 0 and x.sum(1).shape == (0,) and F.softmax(x, -1).shape == (0, 3)
    assert x.T.reshape(3, 0).sum(1).tolist() == [0, 0, 0]
    assert (x @ tx.zeros(3, 2, device="cuda")).shape == (0, 2)
    assert (tx.zeros(2, 0, device="cuda") @ tx.zeros(0, 2, device="cuda")).tolist() == [[0, 0]] * 2
