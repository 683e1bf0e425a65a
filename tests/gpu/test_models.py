"""Every model on device "cuda": training, evaluation and what it writes are the CPU's; files,
copies and shared memory."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_case import DEVICES, default_device, same_on_both
from device_models import COLUMNS, MODELS, V, pairs, train

import tinygrad_tx as tx
from tinygrad_tx import backends, models, nn

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def test_none_is_missing() -> None:
    kinds = {n for n in models.__all__ if inspect.isclass(t := getattr(models, n))
             and issubclass(t, nn.Module)}  # fmt: skip
    bases = {"EncoderDecoder", "LanguageModel"}  # for models of one's own
    assert kinds - bases == {name.partition(",")[0] for name in MODELS}


def written(model: Any, name: str, device: str) -> list[Any]:
    """What a model says in evaluation: logits and texts, or codes and images."""
    model.eval()
    case = MODELS[name]
    batch = [tx.tensor(a, device=device) for a in case.batch(np.random.default_rng(1))]
    with tx.no_grad():
        if name.startswith("BERT"):
            return [model(batch[0]), model.logits(batch[0], batch[2]), model.pooled(batch[0])]
        if "utoencoder" in name:
            code = tx.tensor(np.stack([COLUMNS, COLUMNS[::-1]]), device=device)
            more = [model.sample(2)] if name.startswith("Variational") else []
            return [model(batch[0]), model.encode(batch[0]), model.decode(code), *more]
        logits = model(*batch[: 2 if case.batch is pairs else 1])
    found = [logits]
    for options in ({}, {"beam_size": 2, "length_penalty": 0.6}):
        rows = tx.decoding.generate(model, batch[0], max_new_tokens=5, **options)
        found += [(h.tokens, h.score) for row in rows for h in row]
    return found


# 20 steps of the two kinds that are trained most, 2 of the others.
@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", MODELS)
def test_trained_and_used(name: str) -> None:
    steps = 20 if name in ("Transformer", "GPT") else 2
    losses = []

    def run(device: str) -> list[Any]:
        model, found = train(name, device, steps)
        losses.append(found)
        return [*model.parameters(), *model.buffers(), *written(model, name, device)]

    same_on_both(run, close=1e-4)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert steps == 2 or losses[1][-2] < losses[1][0]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["Transformer", "ConvS2S", "Llama"])
def test_compiled_steps_are_the_eager_ones(name: str) -> None:
    found = []
    for compiled in (False, True):
        tx.manual_seed(3)
        found.append(train(name, "cuda", 3, compiled=compiled)[1])
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_files(tmp_path: Path) -> None:
    """Saved there and loaded there, and on the CPU."""
    model, _ = train("Transformer", "cuda", 1)
    tx.save(model.state_dict(), tmp_path / "model.safetensors")
    state = tx.load(tmp_path / "model.safetensors")
    for device in DEVICES:
        other = MODELS["Transformer"].make().to(device)
        other.load_state_dict(state)
        for name, p in model.state_dict().items():
            assert other.state_dict()[name].device == device
            np.testing.assert_array_equal(other.state_dict()[name].numpy(), p.numpy())


@pytest.mark.parametrize("name", ["GPT, biased", "Llama", "BERT", "T5"])
def test_pretrained_directories(name: str, tmp_path: Path) -> None:
    """Written of a model on a GPU, and read where new Tensors are made."""
    tx.manual_seed(3)
    model = MODELS[name].make().to("cuda")
    models.save_pretrained(model, tmp_path / "saved")
    for device in DEVICES:
        with default_device(device):
            again, _ = models.from_pretrained(tmp_path / "saved")
        for a, b in zip(again.parameters(), model.parameters(), strict=True):
            assert a.device == device
            np.testing.assert_array_equal(a.numpy(), b.numpy())
        again.save_pretrained(tmp_path / device)
    here, there = ((tmp_path / d / "model.safetensors").read_bytes() for d in DEVICES)
    assert here == there


def test_copies() -> None:
    """Pickled, and copied with copy.deepcopy: values, device, and what asks for gradients."""
    for name in MODELS:
        model = MODELS[name].make().to("cuda")
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            for a, b in zip(again.parameters(), model.parameters(), strict=True):
                assert (a.device, a.requires_grad) == ("cuda", b.requires_grad)
                assert (a.numpy() == b.numpy()).all()


def test_an_optimizer_goes_on() -> None:
    """After the state of optimizer, schedule and average was saved on one device and loaded on the
    other, steps are those of one that was never interrupted."""

    def parts(device: str) -> Any:
        tx.manual_seed(3)
        model = nn.Linear(4, 3).to(device)
        optimizer = tx.optim.AdamW(model.parameters(), lr=0.1)
        schedule = tx.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
        return model, optimizer, schedule, tx.optim.EMA(model.parameters(), 0.9)

    def steps(made: Any, device: str, count: int) -> None:
        model, optimizer, schedule, ema = made
        for _ in range(count):
            (model(tx.ones(2, 4, device=device)) ** 2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            ema.update()

    whole = parts("cpu")
    steps(whole, "cpu", 5)
    for first, then in (DEVICES, DEVICES[::-1]):
        before, after = parts(first), parts(then)
        steps(before, first, 2)
        for old, new in zip(before, after, strict=True):
            new.load_state_dict(old.state_dict())
        steps(after, then, 3)
        for old, new in zip(whole, after, strict=True):
            for name, value in new.state_dict().items():
                assert value.device == then
                want = old.state_dict()[name].numpy()
                np.testing.assert_allclose(value.numpy(), want, rtol=1e-5, atol=1e-6)


def test_the_vocabulary_is_no_smaller_than_its_tokens() -> None:
    rng = np.random.default_rng(0)
    assert max(a.max() for case in MODELS.values() for a in case.batch(rng)) < V
