"""What is built on the ops, on device "cuda" against the CPU: random bits, training, decoding,
compiled steps, files and shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import SMALL

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.cli.program import main
from tinygrad_tx.models import registry
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu
DEVICES = ("cpu", "cuda")


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.fixture(autouse=True)
def default_device() -> Iterator[None]:
    """The command line sets it."""
    yield
    tx.set_default_device("cpu")


def transformer(device: str, dropout: float = 0.1) -> tx.models.Transformer:
    tx.manual_seed(3)
    config = tx.models.TransformerConfig(
        vocab_size=23,
        d_model=16,
        n_heads=2,
        d_ff=32,
        n_encoder_layers=1,
        n_decoder_layers=1,
        dropout=dropout,
        max_len=32,
    )
    return tx.models.Transformer(config).to(device)


def batch(rng: np.random.Generator, device: str) -> list[tx.Tensor]:
    """Source (4, 7), two pads at its ends; target moved by one (4, 6); target (4, 6)."""
    source = rng.integers(3, 23, (4, 7))
    source[:, 5:] = 0
    target = rng.integers(3, 23, (4, 6))
    moved = np.concatenate([np.ones((4, 1), int), target[:, :-1]], 1)
    return [tx.tensor(a, device=device) for a in (source, moved, target)]


def train(
    device: str, steps: int, compiled: bool = False
) -> tuple[list[float], dict[str, np.ndarray[Any, Any]]]:
    """The losses of some steps of AdamW with dropout and clipping, and the parameters after."""
    model = transformer(device)
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)

    def step(source: tx.Tensor, moved: tx.Tensor, target: tx.Tensor) -> tx.Tensor:
        loss = model.loss(source, moved, target, label_smoothing=0.1)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = tx.compile(step) if compiled else step
    losses = [run(*batch(rng, device)).item() for _ in range(steps)]
    return losses, {name: p.numpy() for name, p in model.state_dict().items()}


def test_twenty_steps_are_those_of_the_cpu() -> None:
    (want, parameters), (got, moved) = (train(d, 20) for d in DEVICES)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert got[-1] < got[0]
    for name, value in parameters.items():
        np.testing.assert_allclose(moved[name], value, rtol=0, atol=2e-4, err_msg=name)


def test_compiled_steps_are_the_eager_ones() -> None:
    assert train("cuda", 4, compiled=True)[0] == train("cuda", 4)[0]


def test_gpt_trains_and_writes_as_on_the_cpu() -> None:
    found = []
    for device in DEVICES:
        tx.manual_seed(5)
        config = tx.models.GPTConfig(
            vocab_size=19, n_layer=1, n_head=2, n_embd=16, block_size=12, dropout=0.1
        )
        model = tx.models.GPT(config).to(device)
        optimizer = tx.optim.Adam(model.parameters(), lr=1e-2)
        rng = np.random.default_rng(0)
        losses = []
        for _ in range(4):
            ids = tx.tensor(rng.integers(0, 19, (3, 9)), device=device)
            loss = model.loss(ids[:, :-1], ids[:, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        prompt = tx.tensor([[1, 2, 3], [4, 5, 6]], device=device)
        rows = tx.decoding.generate(model, prompt, max_new_tokens=5)
        found.append((losses, [[h.tokens for h in row] for row in rows]))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("kind", ["seq2seq", pytest.param("convs2s", marks=pytest.mark.slow)])
def test_other_kinds_train_and_translate_as_on_the_cpu(kind: str) -> None:
    found = []
    for device in DEVICES:
        tx.manual_seed(5)
        section = {"kind": kind, "d_model": 16, "dropout": 0.1}
        model = registry.build(section, registry.Tokens(23)).to(device)
        optimizer = tx.optim.Adam(model.parameters(), lr=1e-2)
        rng = np.random.default_rng(0)
        losses = []
        for _ in range(3):
            loss = model.loss(*batch(rng, device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        rows = tx.decoding.generate(model, batch(rng, device)[0], beam_size=2, max_new_tokens=5)
        found.append((losses, [[h.tokens for h in row] for row in rows]))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam_size": 3, "length_penalty": 0.6, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 5, "top_p": 0.9},
    ],
    ids=["greedy", "beam", "sampling"],
)
def test_decoding_is_that_of_the_cpu(options: dict[str, Any]) -> None:
    found = []
    for device in DEVICES:
        model = transformer(device, dropout=0.0)
        model.eval()
        source = tx.tensor(np.random.default_rng(1).integers(3, 23, (3, 6)), device=device)
        tx.manual_seed(4)
        rows = tx.decoding.generate(model, source, max_new_tokens=8, **options)
        found.append([[(h.tokens, round(float(h.score), 3)) for h in row] for row in rows])
    assert found[0] == found[1]


def test_the_command_line_trains_resumes_and_translates(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "src").write_text("".join(f"the dog sees {n} cats .\n" for n in range(40)))
    (tmp_path / "tgt").write_text("".join(f"el perro ve {n} gatos .\n" for n in range(40)))
    files = ["--src", str(tmp_path / "src"), "--tgt", str(tmp_path / "tgt"), "--seed", "3"]
    small = ["--set", *(o for o in SMALL if "max_steps" not in o), "train.compile=true"]
    for name, *stops in (("whole", 4), ("parts", 2, 4)):
        out = ["--device", "cuda", "--out", str(tmp_path / name)]
        for i, stop in enumerate(map(str, stops)):
            given = ["--resume"] if i else [*files, *small]
            assert main(["train", *out, "--max-steps", stop, *given]) == 0
    whole, parts = (tx.load(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    for name, tensor in whole.items():  # resumed to the bit
        np.testing.assert_array_equal(parts[name].numpy(), tensor.numpy(), err_msg=name)
    (tmp_path / "text").write_text("the dog sees 7 cats .\n")
    capsys.readouterr()
    for device in DEVICES:
        given = ["--model", str(tmp_path / "whole"), "--device", device, str(tmp_path / "text")]
        assert main(["translate", *given]) == 0
    here, there = capsys.readouterr().out.splitlines()
    assert here == there


def test_files(tmp_path: Path) -> None:
    model, other = transformer("cuda"), transformer("cuda")
    for p in other.parameters():
        with tx.no_grad():
            p.assign(p * 0)
    tx.save(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(tx.load(tmp_path / "model.safetensors"))
    for name, p in model.state_dict().items():
        assert other.state_dict()[name].device == "cuda"
        assert (other.state_dict()[name].numpy() == p.numpy()).all()


def test_shared_memory() -> None:
    there = tx.from_dlpack(tx.tensor([1.0, 2.0], device="cuda"))
    assert there.device == "cuda" and there.tolist() == [1, 2]


def test_random_bits_are_those_of_the_cpu() -> None:
    found = []
    for device in DEVICES:
        tx.manual_seed(11)
        found.append(
            [
                *(F.dropout(tx.ones(7, 33, device=device), p).numpy() for p in (0.1, 0.5)),
                tx.rand(5, 13, device=device).numpy(),
                tx.randint(0, 1000, (97,), device=device).numpy(),
            ]
        )
        normal = tx.randn(50, device=device).numpy()
        found[-1].append(np.round(normal.astype(np.float64), 5))
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here, there)


def test_empty_arrays() -> None:
    x = tx.zeros(0, 3, device="cuda")
    assert x.sum().item() == 0 and x.sum(1).shape == (0,) and F.softmax(x, -1).shape == (0, 3)
    assert x.T.reshape(3, 0).sum(1).tolist() == [0, 0, 0]
    assert (x @ tx.zeros(3, 2, device="cuda")).shape == (0, 2)
    assert (tx.zeros(2, 0, device="cuda") @ tx.zeros(0, 2, device="cuda")).tolist() == [[0, 0]] * 2


def test_loops_are_those_of_the_cpu() -> None:
    """A scan with dropout and a checkpoint, eager and compiled."""
    found = []
    for device in DEVICES:
        tx.manual_seed(4)
        w = tx.tensor(np.linspace(-1, 1, 16).reshape(4, 4), dtype=tx.float32, device=device)
        w.requires_grad_()
        xs = tx.tensor(np.arange(24).reshape(3, 2, 4) % 5, dtype=tx.float32, device=device)

        def cell(h: tx.Tensor, x: tx.Tensor) -> Any:
            h = F.dropout((x + h @ w).tanh(), 0.25)  # noqa: B023
            return h, h

        def run() -> list[tx.Tensor]:
            last, ys = tx.scan(cell, tx.zeros(2, 4, device=device), xs)  # noqa: B023
            y = tx.checkpoint(lambda h: (h @ w).sigmoid())(last)  # noqa: B023
            ((ys**2).sum() + y.sum()).backward()
            grad, w.grad = w.grad, None  # noqa: B023
            return [last.detach(), ys.detach(), grad]

        for f in (run, tx.compile(run)):
            found.append([x.numpy() for x in f()])
    for other in found[1::2]:
        for a, b in zip(other, found[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(found[2], found[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
