"""What is measured: the works, their batches and their weights.

In: a work's name. Out: sizes, seeded batches, and weights under the names of the models'
state_dicts, so that every contender does the same work. NumPy alone: sizes are read from the
package's works.toml, and nothing of it is imported. Called by the contenders and by the benchmarks.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Batch = tuple[Array, ...]
Shapes = dict[str, tuple[int, ...]]

PAD, BOS, EOS, FIRST_WORD = 0, 1, 2, 3
IGNORED = -100  # a GPT's target that does not count

_FILE = Path(__file__).parents[1] / "tinygrad_tx" / "training" / "works.toml"
_TABLES = tomllib.loads(_FILE.read_text(encoding="utf-8"))
LABEL_SMOOTHING, CLIP = (_TABLES["transformer"][key] for key in ("label_smoothing", "clip_norm"))


@dataclass(frozen=True)
class TransformerWork:
    """A step of training a Transformer: post-norm, tied embeddings, Adam. `layers` encoder and as
    many decoder layers; `batch` pairs of `length` source and target positions, padding included."""

    name: str
    width: int
    heads: int
    hidden: int
    layers: int
    vocab: int
    batch: int
    length: int
    dropout: float
    lr: float
    betas: tuple[float, float]
    eps: float

    def shapes(self) -> Shapes:
        shapes: Shapes = {"embedding.weight": (self.vocab, self.width)}
        for stack, kinds in (("encoder", ("self",)), ("decoder", ("self", "cross"))):
            for i in range(self.layers):
                layer = f"{stack}.layers.{i}"
                for kind in kinds:
                    for part in ("q", "k", "v", "out"):
                        name = f"{layer}.{kind}_attn.{part}_proj.weight"
                        shapes[name] = (self.width, self.width)
                shapes |= _linear(f"{layer}.ffn.linear1", self.width, self.hidden)
                shapes |= _linear(f"{layer}.ffn.linear2", self.hidden, self.width)
                for n in range(1, len(kinds) + 2):
                    for part in ("weight", "bias"):
                        shapes[f"{layer}.norm{n}.{part}"] = (self.width,)
        return shapes

    def batches(self, seed: int = 0) -> Iterator[Batch]:
        """(src, tgt_in, tgt_out), int64 (batch, length), without end."""
        rng = np.random.default_rng(seed)
        while True:
            src, _ = self._sentences(rng)
            words, n_words = self._sentences(rng)
            tgt_in, tgt_out = words.copy(), np.roll(words, -1, axis=1)
            tgt_in[:, 0] = BOS
            tgt_out[np.arange(self.batch), n_words - 1] = EOS
            tgt_out[np.arange(self.length) >= n_words[:, None]] = PAD
            yield src, tgt_in, tgt_out

    def flops(self) -> float:
        """Multiplications and additions of the matrix products of a step, forward and backward,
        over all positions, padding included."""
        tokens, d = self.batch * self.length, self.width
        weights = 2 * (4 * d * d + 2 * d * self.hidden) + 4 * d * d  # an encoder and decoder layer
        scores = 3 * 2 * d * self.length  # three attentions, q k^T and p v, for each position
        return 6 * tokens * (self.layers * (weights + scores) + d * self.vocab)

    def _sentences(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Words padded on the right, from half to full length, and how many there are of them."""
        words = rng.integers(FIRST_WORD, self.vocab, (self.batch, self.length))
        lengths = rng.integers(self.length // 2, self.length + 1, self.batch)
        lengths[0] = self.length  # so that every batch has the same width
        words[np.arange(self.length) >= lengths[:, None]] = PAD
        return words, lengths


@dataclass(frozen=True)
class GPTWork:
    """A step of training a GPT: tied head, AdamW; every position counts. bias: of linear maps and
    norms; activation: "gelu" or "gelu_tanh"."""

    name: str
    width: int
    heads: int
    layers: int
    vocab: int
    batch: int
    length: int
    dropout: float
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    bias: bool
    activation: str

    def shapes(self) -> Shapes:
        d = self.width
        shapes: Shapes = {"wte.weight": (self.vocab, d), "wpe.weight": (self.length, d)}
        for i in range(self.layers):
            shapes |= {
                f"h.{i}.attn.c_attn.weight": (3 * d, d),
                f"h.{i}.attn.c_proj.weight": (d, d),
                f"h.{i}.ln_1.weight": (d,),
                f"h.{i}.ln_2.weight": (d,),
                f"h.{i}.mlp.c_fc.weight": (4 * d, d),
                f"h.{i}.mlp.c_proj.weight": (d, 4 * d),
            }
        shapes["ln_f.weight"] = (d,)
        if self.bias:
            shapes |= {
                f"{name.removesuffix('weight')}bias": shape[:1]
                for name, shape in shapes.items()
                if not name.startswith("w")
            }
        return shapes

    def batches(self, seed: int = 0) -> Iterator[Batch]:
        """(ids, targets), int64 (batch, length), without end."""
        rng = np.random.default_rng(seed)
        while True:
            text = rng.integers(0, self.vocab, (self.batch, self.length + 1))
            yield text[:, :-1].copy(), text[:, 1:].copy()

    def flops(self) -> float:
        """Multiplications and additions of the matrix products of a step, forward and backward."""
        d = self.width
        layer = 12 * d * d + 2 * d * self.length
        return 6 * self.batch * self.length * (self.layers * layer + d * self.vocab)


@dataclass(frozen=True)
class RecurrentWork:
    """A step of training `layers` recurrent layers, whose outputs are compared with numbers: mean
    squared error, Adam. `batch` sequences of `length` steps, all of them full."""

    name: str
    cell: str  # "LSTM" or "GRU", as both libraries call their layers
    width: int
    layers: int
    batch: int
    length: int
    lr: float = 1e-3

    @property
    def gates(self) -> int:
        return {"LSTM": 4, "GRU": 3}[self.cell]

    def shapes(self) -> Shapes:
        rows = self.gates * self.width
        shapes: Shapes = {}
        for i in range(self.layers):
            shapes |= {f"weight_{part}_l{i}": (rows, self.width) for part in ("ih", "hh")}
            shapes |= {f"bias_{part}_l{i}": (rows,) for part in ("ih", "hh")}
        return shapes

    def batches(self, seed: int = 0) -> Iterator[Batch]:
        """Inputs and wanted outputs, float32 (length, batch, width), without end."""
        rng, shape = np.random.default_rng(seed), (self.length, self.batch, self.width)
        while True:
            x = rng.standard_normal(shape, np.float32)
            yield x, np.tanh(np.roll(x, 1, axis=0))

    def flops(self) -> float:
        """Multiplications and additions of the matrix products of a step, forward and backward."""
        steps, products = self.batch * self.length, 2 * self.layers
        return 6 * steps * products * self.gates * self.width**2


Work = TransformerWork | GPTWork


@dataclass(frozen=True)
class Decoding:
    """Translating `batch` sources of `source` words into exactly `new_tokens` tokens each."""

    name: str
    model: TransformerWork
    batch: int
    beam: int
    source: int = 32
    new_tokens: int = 64

    def sources(self, seed: int = 0) -> Array:
        rng = np.random.default_rng(seed)
        return rng.integers(FIRST_WORD, self.model.vocab, (self.batch, self.source))

    def weights(self, seed: int = 0) -> dict[str, Array]:
        """The model's, with attention nine times as sharp and the decoder's sub-layers twice as
        loud: otherwise an untrained model repeats a word for ever, and all searches agree."""
        found = weights(self.model, seed)
        for name, value in found.items():
            sharp = ".q_proj." in name or ".k_proj." in name
            loud = ".out_proj." in name or ".linear2.weight" in name
            if sharp:
                value *= 3
            elif loud and name.startswith("decoder."):
                value *= 2
        return found


def _work(name: str, table: Mapping[str, Any]) -> Work:
    """A work of the file: its own table over that of its kind."""
    made: type[Any] = {"transformer": TransformerWork, "gpt": GPTWork}[table["kind"]]
    whole = {**_TABLES[table["kind"]], **table, "name": name}
    whole["betas"] = tuple(whole["betas"])
    work: Work = made(**{field.name: whole[field.name] for field in fields(made)})
    return work


WORKS: dict[str, Work] = {name: _work(name, table) for name, table in _TABLES["measured"].items()}
OF_GPUS = {name: _work(name, table) for name, table in _TABLES["planned"].items()}


def _pairs(name: str) -> TransformerWork:
    work = WORKS[name]
    assert isinstance(work, TransformerWork)
    return work


RECURRENT = {
    work.name: work
    for work in (
        RecurrentWork("lstm", "LSTM", 256, 2, 64, 32),
        RecurrentWork("gru", "GRU", 256, 2, 64, 32),
        RecurrentWork("tiny-lstm", "LSTM", 8, 2, 3, 4),
    )
}
DECODINGS: dict[str, Decoding] = {
    case.name: case
    for case in (
        Decoding("greedy-1", _pairs("W2"), batch=1, beam=1),
        Decoding("greedy-32", _pairs("W2"), batch=32, beam=1),
        Decoding("beam-4", _pairs("W2"), batch=8, beam=4),
        Decoding("tiny", _pairs("tiny"), batch=2, beam=2, source=8, new_tokens=6),
    )
}
MEASURED = tuple(name for name in WORKS if not name.startswith("tiny"))
MEASURED_DECODINGS = tuple(name for name in DECODINGS if name != "tiny")


def weights(work: Work | RecurrentWork, seed: int = 0) -> dict[str, Array]:
    """float32 weights under the names of the model's state_dict: biases 0, norms 1, embeddings
    normal (as the models begin them), matrices normal with the deviation of Xavier's."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name, shape in work.shapes().items():
        if len(shape) == 1:
            value: Array = np.full(shape, 0.0 if name.endswith("bias") else 1.0)
        elif name.startswith(("wte", "wpe")):
            value = 0.02 * rng.standard_normal(shape)
        elif name == "embedding.weight":
            value = rng.standard_normal(shape) / work.width**0.5
        else:
            value = rng.standard_normal(shape) * (2 / sum(shape)) ** 0.5
        found[name] = value.astype(np.float32)
    return found


def _linear(name: str, n_in: int, n_out: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
