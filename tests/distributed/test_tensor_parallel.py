"""Ranks that share a model: feed-forwards by units, the vocabulary by words. All of them find what
one rank finds, eager and compiled, of sizes that they do not divide."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks_case import case, train_all
from training_runs import rows

import tinygrad_tx as tx
from tinygrad_tx import models, optim
from tinygrad_tx.distributed import functional, get_rank, local
from tinygrad_tx.errors import UserError
from tinygrad_tx.models.tensor_parallel import ParallelDropout
from tinygrad_tx.partition import Partition, partition_of, whole_on_first
from tinygrad_tx.training import Config, apply_overrides, preset

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are made by fork")

VOCAB, WIDTH, FF, ROWS, LENGTH = 11, 8, 7, 3, 5  # 2 and 3 ranks divide neither 11 nor 7
SIZES: dict[str, Any] = {"d_model": WIDTH, "n_heads": 2, "d_ff": FF}
LAYERS = {"n_encoder_layers": 1, "n_decoder_layers": 1, "output_bias": True}
SHARED = {"tensor_parallel": True}


def gpt(**more: Any) -> Any:
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": WIDTH, "block_size": LENGTH + 1, "dropout": 0.1}
    return models.GPT(models.GPTConfig(VOCAB, bias=True, **{**sizes, **more}))


def transformer(tied: bool = True, **more: Any) -> Any:
    options = {"activation_dropout": 0.2, "tie_embeddings": tied, **SIZES, **LAYERS}
    other = None if tied else VOCAB + 2
    return models.Transformer(models.TransformerConfig(VOCAB, other, **options, **more))


MODELS: dict[str, Callable[..., Any]] = {
    "gpt": gpt,
    "transformer": transformer,
    "untied": lambda **more: transformer(tied=False, **more),
    "llama": lambda **more: models.Llama(
        models.LlamaConfig(VOCAB, n_layers=1, max_len=LENGTH, mlp_bias=True, **SIZES, **more)
    ),
    "t5": lambda **more: models.T5(models.T5Config(VOCAB, n_layers=1, gated=True, **SIZES, **more)),
    "bert": lambda **more: models.BERT(
        models.BERTConfig(VOCAB, n_layers=1, max_len=LENGTH, pooler=False, **SIZES, **more)
    ),
}


def made(kind: str, **more: Any) -> tuple[Any, list[Any]]:
    """A model in float64, and a batch for its loss, in which some targets do not count."""
    tx.manual_seed(3)
    model = MODELS[kind](**more).to(tx.float64)
    drawn = np.random.default_rng(4)
    if getattr(model, "output_bias", None) is not None:
        model.output_bias = tx.tensor(drawn.normal(size=VOCAB))
    translates = hasattr(model, "source_mask")
    ids = [drawn.integers(1, VOCAB, (ROWS, LENGTH)) for _ in range(3 if translates else 2)]
    ids[-1][0, 3:] = 0 if translates else -100
    return model, [tx.tensor(x) for x in ids]


def trained(kind: str, compiled: bool) -> dict[str, Any]:
    """What two steps show, and what they leave."""
    model, batch = made(kind, **SHARED)
    optimizer = optim.AdamW(model.parameters(), 1e-2)
    average = optim.EMA(model.parameters(), 0.5)

    def step(*batch: Any) -> Any:
        loss = model.loss(*batch, label_smoothing=0.1)
        loss.backward()
        norm = optim.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        return loss.detach(), norm

    run = tx.compile(step) if compiled else step
    seen = [[number.item() for number in run(*batch)] for _ in range(2)]
    states = {"model": model, "optimizer": optimizer, "average": average}
    found = {f"{n}.{k}": t.numpy() for n, s in states.items() for k, t in s.state_dict().items()}
    model.eval()
    with tx.no_grad():
        call = model.logits if kind == "bert" else model
        found["logits"] = call(*batch[: len(batch) - 1]).numpy()
    return {"seen": np.array(seen), **found}


Found = dict[str, dict[str, Any]]  # by kind of model


def every(kinds: tuple[str, ...], compiled: bool) -> Found:
    tx.set_num_threads(1)
    return {kind: trained(kind, compiled) for kind in kinds}


@cache
def alone(kinds: tuple[str, ...], compiled: bool) -> Found:
    """What one rank finds, to whom the option says nothing."""
    return local.run(1, lambda: every(kinds, compiled))[0]


@pytest.mark.parametrize(
    ("size", "kinds", "compiled"),
    [
        (2, ("transformer", "llama", "bert"), False),
        (3, ("gpt", "untied", "t5"), False),
        (2, ("gpt",), True),
        *(
            pytest.param(size, tuple(MODELS), compiled, marks=pytest.mark.slow)
            for size in (2, 3)
            for compiled in (False, True)
        ),
    ],
)
def test_steps_are_those_of_one_rank(size: int, kinds: tuple[str, ...], compiled: bool) -> None:
    """Losses, norms, whole weights, moments and averages, and logits, with dropout in the
    feed-forwards; and all ranks have the same bits."""
    ranks = local.run(size, lambda: every(kinds, compiled))
    for kind, wanted in alone(kinds, compiled).items():
        assert wanted["seen"][0, 1] > 0.5  # the norm is clipped
        for found in (rank[kind] for rank in ranks):
            assert list(found) == list(wanted)
            for name, array in wanted.items():
                assert found[name].shape == array.shape
                assert abs(found[name] - array).max() < 1e-9, (kind, name)
                assert found[name].tobytes() == ranks[0][kind][name].tobytes(), (kind, name)


# The two ops -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_the_ops(compiled: bool) -> None:
    """Of a value that all ranks have: against central differences of the loss that all have."""
    h, start = 1e-5, np.random.default_rng(2).normal(size=(2, 3))

    def loss(x: Any) -> Any:
        own = tx.tensor(np.random.default_rng([5, get_rank()]).normal(size=(2, 3)))
        inside = functional.copy_to_ranks(x.sin()) * own
        y = functional.reduce_from_ranks(inside * inside + inside)
        return (y * y * tx.tensor(np.arange(6.0).reshape(2, 3))).sum()

    def gradient(x: Any) -> Any:
        return tx.autograd.grad(loss(x), [x], create_graph=True)[0]

    def both(x: Any) -> Any:
        g = gradient(x)
        return g.detach(), tx.autograd.grad((g * g).sum(), [x])[0]

    def rank() -> Any:
        wrap = tx.compile if compiled else lambda f: f
        first, twice = wrap(both)(tx.tensor(start, requires_grad=True))
        values = wrap(lambda x: (loss(x), (gradient(x) ** 2).sum()))
        slopes = []
        for number in range(start.size):
            found = []
            for step in (h, -h):
                moved = start.copy()
                moved.flat[number] += step
                found.append([v.item() for v in values(tx.tensor(moved, requires_grad=True))])
            slopes.append((np.array(found[0]) - np.array(found[1])) / (2 * h))
        return first.numpy(), twice.numpy(), np.array(slopes).T.reshape(2, 2, 3)

    for first, twice, slopes in local.run(3, rank):
        np.testing.assert_allclose(first, slopes[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(twice, slopes[1], rtol=1e-6, atol=1e-5)


# What a rank has, and what it does ---------------------------------------------------------------


def test_parts() -> None:
    """Parts make the whole again, of any axis, of blocks that are shared each by itself; on the
    first rank alone where that is asked for."""
    cases = [((7, 2), 0, 1), ((10, 3), 0, 2), ((2, 7), 1, 1), ((8,), 0, 2)]

    def rank() -> Any:
        found = []
        for shape, axis, blocks in cases:
            whole = tx.arange(float(np.prod(shape))).reshape(*shape)
            partition = Partition(shape, axis, blocks)
            part = partition.part(whole)
            with whole_on_first():
                first = partition.whole(part)
            found.append([x.numpy() for x in (whole, part, partition.whole(part), first)])
        return found

    for ranks in zip(*local.run(3, rank), strict=True):
        for number, (whole, part, again, first) in enumerate(ranks):
            np.testing.assert_array_equal(again, whole)
            np.testing.assert_array_equal(first, part if number else whole)
        assert sum(part.size for _, part, *_ in ranks) == ranks[0][0].size
    whole, part, *_ = local.run(2, rank)[1][1]
    np.testing.assert_array_equal(part, whole[[2, 3, 4, 7, 8, 9]])  # the second half of each block


def test_memory_and_summary() -> None:
    """A rank holds its part of the split weights, gradients and moments, and all else; a summary
    counts the whole."""
    whole, _ = made("llama")
    split = [n for n, p in whole.named_parameters() if "mlp" in n or "embed" in n or "head" in n]
    sizes = {n: p.numel() for n, p in whole.named_parameters()}
    expected = sum(sizes.values())

    def rank() -> Any:
        model, batch = made("llama", **SHARED)
        optimizer = optim.Adam(model.parameters(), 1e-3)
        model.loss(*batch).backward()
        names = [n for n, p in model.named_parameters() if partition_of(p) is not None]
        bytes_of = [p.numel() * 8 for p in model.parameters()]
        grads = [p.grad.numel() * 8 for p in model.parameters()]
        moments = [t.numel() * 8 for m in optimizer.moments for t in m.values()]
        table = model.summary(batch[0])
        copy = pickle.loads(pickle.dumps(model))
        again = all(
            partition_of(p) == partition_of(q)
            for p, q in zip(model.parameters(), copy.parameters(), strict=True)
        )
        assert again
        return names, sum(bytes_of), sum(grads), sum(moments), table.parameters, repr(table)

    found = local.run(2, rank)
    apart = [n for n in split if not n.endswith("down_proj.bias")]
    common = sum(sizes.values()) - sum(sizes[n] for n in apart)
    for names, held, grads, moments, parameters, table in found:
        assert sorted(names) == sorted(apart)
        assert held == grads == moments / 2 < 8 * (common + 0.6 * (expected - common))
        assert parameters == expected
        assert f"{expected:,} parameters" in table and f"this one has {held // 8:,} num" in table
    assert sum(f[1] for f in found) == 8 * (expected + common)


def test_the_plan() -> None:
    """A feed-forward takes one sum forward and one backward; the embedding one, the loss a maximum,
    its sums, and one of the gradient. No array has all words of all positions."""
    layers = 2

    def plan() -> Any:
        model, batch = made("gpt", **SHARED, n_layer=layers)
        optimizer = optim.SGD(model.parameters(), 1e-2)

        def step(*batch: Any) -> Any:
            model.loss(*batch, label_smoothing=0.1).backward()
            optimizer.step()
            optimizer.zero_grad()

        run = tx.compile(step)
        run(*batch)
        calls = [call for launch in run._last.plan.launches() for call in launch.calls]
        return [(call.ops, [w.shape for w in call.writes]) for call in calls]

    for rank, calls in enumerate(local.run(2, plan)):
        called = [ops for ops, _ in calls if ops.endswith(("_ranks", "_reduce", "_gather"))]
        # Forward the embedding, each layer's feed-forward and the sums of the loss; backward the
        # gradient of what logits are made of, and each layer's feed-forward.
        assert called.count("reduce_from_ranks") == 3 + 2 * layers
        # The maximum, and the norm by which the optimizer takes a step or none.
        assert called.count("all_reduce") == 2 and len(called) == 5 + 2 * layers
        shapes = [shape for _, written in calls for shape in written]
        assert (ROWS * LENGTH, VOCAB // 2 + rank) in shapes
        assert not any(VOCAB in shape for shape in shapes)


def test_a_gradient_that_is_not_finite_on_one_rank() -> None:
    """All skip the step, also where the number is in a part that one rank alone has."""

    def rank() -> Any:
        model, batch = made("gpt", **SHARED)
        optimizer = optim.Adam(model.parameters(), 1e-2)
        before = {n: t.numpy() for n, t in model.state_dict().items()}
        model.loss(*batch).backward()
        if get_rank() == 1:
            weight = model.h[0].mlp.c_fc.weight
            weight.grad = weight.grad * float("inf")
        norm = optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        after = model.state_dict()
        same = all((after[n].numpy() == array).all() for n, array in before.items())
        return same, optimizer.skipped.item(), norm.isfinite().item()

    assert local.run(2, rank) == [(True, 1, False)] * 2


def test_decoding_and_states() -> None:
    """Decoding is what all ranks call; a whole state is taken, and one of another shape named."""

    def rank() -> Any:
        model, _ = made("gpt", **SHARED)
        model.eval()
        found = tx.decoding.generate(model, [[1, 2, 3]], max_new_tokens=3)
        other, _ = made("gpt")
        other.load_state_dict(model.state_dict())
        alone = tx.decoding.generate(other.eval(), [[1, 2, 3]], max_new_tokens=3)
        with pytest.raises(UserError, match=r"wte.weight is \(3, 8\), wanted \(11, 8\)"):
            model.load_state_dict({**other.state_dict(), "wte.weight": tx.zeros(3, 8)})
        return found[0][0].tokens, alone[0][0].tokens

    for shared, alone in local.run(2, rank):
        assert shared == alone and len(shared) == 3


def test_what_cannot_be_shared() -> None:
    def rank() -> None:
        with pytest.raises(UserError, match="3 ranks cannot share a vocabulary of 2; start fewer"):
            models.GPT(models.GPTConfig(2, 1, 1, 8, 4, **SHARED))
        with pytest.raises(UserError, match="3 ranks cannot share a feed-forward of 2"):
            models.T5(models.T5Config(9, **{**SIZES, "d_ff": 2}, **SHARED))
        model, batch = made("gpt", **SHARED)
        with pytest.raises(IndexError, match="embedding"):
            model(batch[0] + VOCAB)
        with pytest.raises(IndexError, match="cross_entropy"):
            model.loss(batch[0], batch[1] + VOCAB)
        with pytest.raises(UserError, match="Adafactor needs whole parameters"):
            optim.Adafactor(model.parameters())
        model.loss(*batch).backward()
        with pytest.raises(UserError, match="norm_type must be 2"):
            optim.clip_grad_norm_(model.parameters(), 1.0, norm_type=1.0)

    local.run(3, rank)
    with pytest.raises(UserError, match=r"optim.shard and model.tensor_parallel are both true"):
        apply_overrides(Config(), ["model.tensor_parallel=true", "optim.shard=true"])
    with pytest.raises(UserError, match=r"model.tensor_parallel is a setting of kind transformer"):
        apply_overrides(preset("tiny-rnn"), ["model.tensor_parallel=true"])


def test_dropout_of_some_units() -> None:
    """It is the columns of the mask that all units would have."""

    def rank() -> Any:
        tx.manual_seed(8)
        first = Partition((4, 7), 1)
        x = tx.arange(1.0, 29.0).reshape(4, 7)
        return ParallelDropout(0.4, 7)(first.part(x)).numpy()

    tx.manual_seed(8)
    whole = tx.nn.functional.dropout(tx.arange(1.0, 29.0).reshape(4, 7), 0.4).numpy()
    np.testing.assert_allclose(np.concatenate(local.run(3, rank), 1), whole, rtol=1e-6)


# Runs --------------------------------------------------------------------------------------------

RUN = ("model.tensor_parallel=true", "train.valid_every=4", "train.checkpoint_every=2")
RUN = (*RUN, "optim.clip_norm=0.3", "optim.ema_decay=0.5", "train.compile=false")
TEXT = "the cat sat on the mat. " * 20


def differ(one: Path, other: Path) -> float:
    """How far the metrics, the last checkpoints and the best weights of two runs are apart."""
    worst = 0.0
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if isinstance(value, float):
                worst = max(worst, abs(value - b[name]))
    last = sorted((one / "checkpoints").iterdir())[-1].relative_to(one)
    for file in (last, Path("model.safetensors")):
        mine, wanted = tx.load(one / file), tx.load(other / file)
        assert list(mine) == list(wanted)
        worst = max(worst, *(abs(mine[n].numpy() - wanted[n].numpy()).max() for n in mine))
    return worst


def test_runs_of_ranks_that_share_a_model(tmp_path: Path) -> None:
    """The run of one rank, file by file; a checkpoint of two goes on with one, without the option,
    and with three; the saved model is read by a process alone."""
    steps = (*RUN, "train.max_steps=4")
    without = (*steps, "model.tensor_parallel=false")
    train_all(
        tmp_path,
        case("alone", 1, *steps, text=TEXT),
        case("shared", 2, *steps, text=TEXT),
        *(case(name, 2, *steps, stops=[2], text=TEXT) for name in ("one", "three")),
        case("one", 1, *without, resume=True, text=TEXT),
        case("three", 3, *steps, resume=True, text=TEXT),
    )
    for name in ("shared", "one", "three"):
        assert differ(tmp_path / "alone", tmp_path / name) < 1e-9, name
    made, _ = models.load(tmp_path / "shared")
    assert made.wte.weight.shape[0] == made.config.vocab_size
    assert len(tx.load(tmp_path / "shared" / "model.safetensors")) == len(made.state_dict())
