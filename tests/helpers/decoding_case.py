"""What the tests of decoding share: models small enough to be decoded by hand (a Markov chain, a
recurrent network), small random ones of the real kinds, and a beam search that takes no short cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.decoding import Hypothesis
from tinygrad_tx.models.stepwise import Start, repeated, rows_of

Array = np.ndarray[Any, Any]
# Prefixes (n) of one length -> log-probabilities (n, V) of what follows each.
LogProbs = Callable[[list[list[int]]], Array]

PAD, BOS, EOS = 0, 1, 2


class Forgetful(NamedTuple):
    """The state of a Chain: nothing to remember."""

    rows: tx.Tensor  # (B, beam), for its shape

    def reorder(self, rows: tx.Tensor) -> None:
        pass

    def keep(self, sentences: tx.Tensor) -> Forgetful:
        return Forgetful(self.rows.index_select(0, sentences))


class Chain(tx.nn.Module):
    """Given probabilities of the token that follows each token; the first follows the source's.
    The last one is the end token."""

    padding_side = "right"

    def __init__(self, probs: Any) -> None:
        table = tx.tensor(np.asarray(probs, np.float64))
        self.config = SimpleNamespace(eos_id=len(table) - 1, pad_id=None)
        self.table = tx.nn.Parameter(table.log())

    def room(self, length: int) -> int | None:
        return None

    def start(
        self,
        ids: tx.Tensor,
        lengths: tx.Tensor | None = None,
        *,
        max_new_tokens: int,
        beam: int = 1,
    ) -> Start:
        rows = ids[:, :1] + tx.zeros(1, beam, dtype=tx.int64)
        return Start(Forgetful(rows), rows.reshape(-1), tx.tensor(0))

    def step(self, state: Forgetful, ids: tx.Tensor, position: tx.Tensor) -> tx.Tensor:
        return self.table.index_select(0, ids)


class Memory(NamedTuple):
    """The state of a Recurrent: one vector for each row."""

    h: tx.Tensor  # (N, D)
    beams: tx.Tensor  # (beam,), for its shape

    def reorder(self, rows: tx.Tensor) -> None:
        self.h.assign(self.h.index_select(0, rows))

    def keep(self, sentences: tx.Tensor) -> Memory:
        rows = rows_of(sentences, self.beams.shape[0])
        return Memory(self.h.index_select(0, rows), self.beams)


class Recurrent(tx.nn.Module):
    """h = tanh(h A + E[token]), logits = h W: small, but every token so far matters."""

    padding_side = "right"

    def __init__(self, vocab_size: int, scale: float = 3.0) -> None:
        self.config = SimpleNamespace(eos_id=vocab_size - 1, pad_id=0)
        self.mix = tx.nn.Parameter(tx.randn(6, 6, dtype=tx.float64))
        self.words = tx.nn.Parameter(tx.randn(vocab_size, 6, dtype=tx.float64))
        self.out = tx.nn.Parameter(tx.randn(6, vocab_size, dtype=tx.float64) * scale)

    def room(self, length: int) -> int | None:
        return None

    def start(
        self,
        ids: tx.Tensor,
        lengths: tx.Tensor | None = None,
        *,
        max_new_tokens: int,
        beam: int = 1,
    ) -> Start:
        known = (ids != self.config.pad_id).unsqueeze(-1)
        h = repeated(self.words.index_select(0, ids.reshape(-1)).reshape(*ids.shape, 6), 1)
        h = repeated((h * known).sum(1).tanh(), beam)
        first = tx.zeros(h.shape[0], dtype=tx.int64)
        return Start(Memory(h, tx.zeros(beam)), first, tx.tensor(0))

    def step(self, state: Memory, ids: tx.Tensor, position: tx.Tensor) -> tx.Tensor:
        h = (state.h @ self.mix + self.words.index_select(0, ids)).tanh()
        state.h.assign(h)
        return h @ self.out

    def log_probs(self, source: list[int]) -> LogProbs:
        """The same without a state, in NumPy."""
        mix, words, out = (p.detach().numpy() for p in (self.mix, self.words, self.out))
        begin = np.tanh(words[[token for token in source if token]].sum(0))

        def of(prefixes: list[list[int]]) -> Array:
            h = np.tile(begin, (len(prefixes), 1))
            for tokens in zip(*([0, *prefix] for prefix in prefixes), strict=True):
                h = np.tanh(h @ mix + words[list(tokens)])
            logits = h @ out
            return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

        return of


def transformer(**options: Any) -> tx.models.Transformer:
    """A small one with random weights in float64, where ties are out of the question."""
    sizes = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "d_ff": 24}
    settings = {**sizes, "n_encoder_layers": 1, "n_decoder_layers": 2}
    model = tx.models.Transformer(tx.models.TransformerConfig(**{**settings, **options}))
    for parameter in model.parameters():
        with tx.no_grad():
            parameter.assign(parameter * 2)  # far from uniform
    return model.to(tx.float64)


def gpt(**options: Any) -> tx.models.GPT:
    settings = {"vocab_size": 11, "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 24}
    model = tx.models.GPT(tx.models.GPTConfig(**{**settings, "eos_id": EOS, **options}))
    for parameter in model.parameters():
        with tx.no_grad():
            parameter.assign(parameter * 8 if parameter.ndim == 2 else parameter)
    return model.to(tx.float64)


def padded(rows: list[list[int]], width: int, left: bool = False) -> np.ndarray[Any, Any]:
    out = np.zeros((len(rows), width), np.int32)
    for line, row in zip(out, rows, strict=True):
        line[width - len(row) if left else 0 :][: len(row)] = row
    return out


def penalty(n: int, alpha: float) -> float:
    return float(((5 + n) / 6) ** alpha)


def reference(
    log_probs: LogProbs,
    eos: int,
    *,
    limit: int,
    beam: int = 1,
    alpha: float = 0.0,
    min_new: int = 0,
) -> tuple[list[Hypothesis], float]:
    """Beam search on whole prefixes that never stops early, and the smallest distance between two
    candidates that it had to choose between."""
    live: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[Hypothesis] = []
    margin = np.inf
    for n in range(1, limit + 1):
        candidates = [
            (total + float(value), prefix, token)
            for (prefix, total), values in zip(
                live, log_probs([prefix for prefix, _ in live]), strict=True
            )
            for token, value in enumerate(values)
            if token != eos or n > min_new
        ]
        candidates.sort(key=lambda c: -c[0])
        sums = np.array([c[0] for c in candidates[: 2 * beam + 1]])
        margin = min(margin, *-np.diff(sums))
        live = []
        for rank, (total, prefix, token) in enumerate(candidates):
            if token == eos:
                if rank < beam:
                    finished.append(Hypothesis(prefix, total / penalty(n, alpha)))
            elif len(live) < beam:
                live.append(([*prefix, token], total))
    finished += [Hypothesis(prefix, total / penalty(limit, alpha)) for prefix, total in live]
    finished.sort(key=lambda h: -h.score)
    scores = np.array([h.score for h in finished])
    return finished[:beam], min(margin, *-np.diff(scores), np.inf)


def whole_prefixes(model: tx.models.Transformer | tx.models.GPT, source: list[int]) -> LogProbs:
    """The model's log-probabilities by a full forward pass over the prefixes: no cache."""

    @tx.no_grad()
    def of(prefixes: list[list[int]]) -> Array:
        if isinstance(model, tx.models.GPT):
            logits = model(tx.tensor([[*source, *prefix] for prefix in prefixes]))
        else:
            sources = tx.tensor([source] * len(prefixes))
            logits = model(sources, tx.tensor([[BOS, *prefix] for prefix in prefixes]))
        return logits[:, -1].log_softmax(-1).numpy()

    return of


def same(found: list[Hypothesis], wanted: list[Hypothesis], tolerance: float = 1e-9) -> None:
    assert [h.tokens for h in found] == [h.tokens for h in wanted]
    np.testing.assert_allclose(
        [h.score for h in found], [h.score for h in wanted], tolerance, 1e-12
    )
