"""Decoding: greedy and beam search against brute force and against a search without caches, on a
recurrent toy, on random Transformers and GPTs, and on a Transformer that has learned to reverse."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
from decoding_case import (
    EOS,
    PAD,
    Chain,
    Recurrent,
    gpt,
    padded,
    penalty,
    reference,
    same,
    transformer,
    whole_prefixes,
)

import tinygrad_tx as tx
from tinygrad_tx.compiler.compiled import Compiled
from tinygrad_tx.decoding import Hypothesis, generate
from tinygrad_tx.decoding.beam import BeamSearch
from tinygrad_tx.decoding.loop import Steps, round_up
from tinygrad_tx.errors import UserError

SOURCES = [[3, 4, 5], [7], [9, 8, 7, 6, 5, 4, 3], [10, 10], [6, 5, 4, 3]]
SEARCHES = [(1, 0.0), (1, 0.8), (3, 0.0), (3, 0.6), (4, 2.0), (3, -1.0)]  # beam, length penalty

# What a search finds ---------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0, -0.7])
@pytest.mark.parametrize("min_new", [0, 2])
def test_a_beam_as_wide_as_everything_finds_the_true_best(alpha: float, min_new: int) -> None:
    tx.manual_seed(3)
    vocab, limit = 4, 4
    model = Recurrent(vocab)
    eos = model.config.eos_id
    found = generate(
        model,
        [[1, 2], [2]],
        beam_size=vocab**limit,
        max_new_tokens=limit,
        min_new_tokens=min_new,
        length_penalty=alpha,
        num_return_sequences=20,
    )
    for source, row in zip([[1, 2], [2]], found, strict=True):
        log_probs = model.log_probs(source)
        every = []
        for n in range(limit + 1):
            for tokens in itertools.product(range(vocab - 1), repeat=n):
                prefix = list(tokens)
                total = sum(log_probs([prefix[:i]])[0, token] for i, token in enumerate(prefix))
                if n == limit:
                    every.append(Hypothesis(prefix, total / penalty(n, alpha)))
                elif n >= min_new:
                    total += log_probs([prefix])[0, eos]
                    every.append(Hypothesis(prefix, total / penalty(n + 1, alpha)))
        same(row, sorted(every, key=lambda h: -h.score)[:20])


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("beam", "alpha"), SEARCHES)
def test_stopping_early_changes_nothing(
    beam: int, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = steps = 0
    advance = BeamSearch.advance

    def counted(self: BeamSearch, *candidates: Any) -> None:
        nonlocal steps
        steps += 1
        advance(self, *candidates)

    monkeypatch.setattr(BeamSearch, "advance", counted)
    for seed in range(12):
        tx.manual_seed(seed)
        model = Recurrent(5, scale=1.5 * (1 + seed % 4))
        sources = [[1], [2, 3], [3, 1, 2]]
        steps = 0
        found = generate(
            model,
            sources,
            beam_size=beam,
            max_new_tokens=9,
            length_penalty=alpha,
            num_return_sequences=beam,
        )
        early += steps < 9
        for source, row in zip(sources, found, strict=True):
            wanted, _ = reference(
                model.log_probs(source), model.config.eos_id, limit=9, beam=beam, alpha=alpha
            )
            same(row, wanted)
    assert early or alpha > 1, "no search stopped early: nothing has been tested"


def test_decoding_ends_when_the_end_token_is_chosen() -> None:
    model = Chain([[0, 0.6, 0.3, 0.1], [0, 0.1, 0.3, 0.6], [0, 0.5, 0.2, 0.3], [1, 0, 0, 0]])
    ((greedy,),) = generate(model, [[0]])
    assert greedy.tokens == [1]
    assert greedy.score == pytest.approx(np.log(0.6 * 0.6))  # the end token's included


def test_a_beam_sees_what_greedy_search_misses() -> None:
    model = Chain([[0, 0.6, 0.4, 0], [0, 0.4, 0.3, 0.3], [0, 0.05, 0.05, 0.9], [1, 0, 0, 0]])
    ((greedy,),) = generate(model, [[0]], max_new_tokens=2)
    ((best, second),) = generate(
        model, [[0]], beam_size=2, max_new_tokens=2, num_return_sequences=2
    )
    assert greedy.tokens == [1, 1] and greedy.score == pytest.approx(np.log(0.24))
    assert best.tokens == [2] and best.score == pytest.approx(np.log(0.36))
    assert second.tokens == [1, 1]


def test_finished_hypotheses_stay_in_the_race() -> None:
    """One that ends at once with 0.4 is better than all that go on, which are live much longer."""
    model = Chain([[0, 0.3, 0.3, 0.4], [0, 0.5, 0.4, 0.1], [0, 0.4, 0.5, 0.1], [1, 0, 0, 0]])
    ((best,),) = generate(model, [[0]], beam_size=2, max_new_tokens=6)
    assert best == Hypothesis([], pytest.approx(np.log(0.4)))
    # With a length penalty a longer one wins, so it must not have stopped.
    ((best,),) = generate(model, [[0]], beam_size=2, max_new_tokens=6, length_penalty=6.0)
    assert len(best.tokens) == 6


def test_the_score_is_divided_by_the_length_penalty() -> None:
    model = Chain([[0, 0.9, 0.1], [0, 0.2, 0.8], [1, 0, 0]])
    ((best,),) = generate(model, [[0]], length_penalty=0.6)
    assert best.tokens == [1]
    assert best.score == pytest.approx(np.log(0.9 * 0.8) / (7 / 6) ** 0.6)  # n = 2


def test_live_hypotheses_enter_unfinished_at_the_limit() -> None:
    model = Chain([[0, 0.9, 0.1], [0, 0.9, 0.1], [1, 0, 0]])
    ((best,),) = generate(model, [[0]], max_new_tokens=3, length_penalty=1.0)
    assert best.tokens == [1, 1, 1]
    assert best.score == pytest.approx(3 * np.log(0.9) / (8 / 6))


def test_no_end_before_min_new_tokens() -> None:
    model = Chain([[0, 0.1, 0.9], [0, 0.2, 0.8], [1, 0, 0]])
    for least in range(4):
        ((best,),) = generate(model, [[0]], min_new_tokens=least, max_new_tokens=8)
        assert len(best.tokens) == least


def test_each_row_has_its_limit() -> None:
    model = Chain([[0, 0.9, 0.1], [0, 0.9, 0.1], [1, 0, 0]])
    for beam in (1, 2):
        found = generate(model, [[0]] * 5, max_new_tokens=[3, 1, 7, 2, 1], beam_size=beam)
        alone = [generate(model, [[0]], max_new_tokens=n, beam_size=beam)[0] for n in (3, 1, 7, 2)]
        assert [len(row[0].tokens) for row in found] == [3, 1, 7, 2, 1]
        assert found[:4] == alone


def test_fewer_hypotheses_where_there_are_fewer() -> None:
    model = Chain([[0, 0.5, 0.5], [0, 0, 1], [1, 0, 0]])
    (row,) = generate(model, [[0]], beam_size=5, num_return_sequences=5, max_new_tokens=3)
    assert sorted(h.tokens for h in row) == [[], [1]]
    with pytest.raises(UserError, match=r"row 0: .*probability 0"):
        generate(model, [[0]], beam_size=2, min_new_tokens=2)


# Models: caches, batches, padding ----------------------------------------------------------------


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.0), (3, 0.6), (4, -1.0)])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_transformer_decodes_as_without_caches(norm: str, beam: int, alpha: float) -> None:
    tx.manual_seed(beam)
    model = transformer(norm=norm).eval()
    found = generate(
        model,
        SOURCES,
        beam_size=beam,
        max_new_tokens=8,
        length_penalty=alpha,
        num_return_sequences=beam,
    )
    for source, row in zip(SOURCES, found, strict=True):
        wanted, margin = reference(
            whole_prefixes(model, source), EOS, limit=8, beam=beam, alpha=alpha
        )
        assert margin > 1e-7
        same(row, wanted)


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.0), (3, 0.6)])
def test_a_gpt_decodes_as_without_caches(beam: int, alpha: float) -> None:
    """Prompts of unequal length, padded on the left inside; without pad_id and with one."""
    tx.manual_seed(1)
    model = gpt().eval()
    found = generate(
        model,
        SOURCES,
        beam_size=beam,
        max_new_tokens=8,
        length_penalty=alpha,
        num_return_sequences=beam,
    )
    for prompt, row in zip(SOURCES, found, strict=True):
        wanted, margin = reference(
            whole_prefixes(model, prompt), EOS, limit=8, beam=beam, alpha=alpha
        )
        assert margin > 1e-7
        same(row, wanted)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("beam", [1, 4])
def test_random_weights_give_the_same_whatever_the_batch(kind: str, beam: int) -> None:
    """Eager matmuls round differently for other shapes: rows where float32 leaves two scores within
    1e-4 do not count."""
    tx.manual_seed(7)
    model = transformer().eval()
    rng = np.random.default_rng(0)
    sources = [rng.integers(3, 11, n).tolist() for n in rng.integers(1, 12, 10)]
    clear = sources
    if kind == "float32":
        model.to(tx.float32)
        clear = [
            source
            for source in sources
            if reference(whole_prefixes(model, source), EOS, limit=8, beam=beam)[1] > 1e-4
        ]
    assert len(clear) >= len(sources) // 2
    settings: dict[str, Any] = {"beam_size": beam, "max_new_tokens": 8}
    settings["num_return_sequences"] = min(beam, 2)
    alone = [generate(model, [source], **settings)[0] for source in clear]
    for found in (
        generate(model, clear, **settings),
        generate(model, padded(clear, 30), **settings),
        generate(model, tx.tensor(padded(clear, 12)), **settings),
        [
            row
            for i in range(0, len(clear), 3)
            for row in generate(model, clear[i : i + 3], **settings)
        ],
    ):
        for row, wanted in zip(found, alone, strict=True):
            same(row, wanted, 1e-9 if kind == "float64" else 1e-4)


def test_prompts_may_be_padded_on_either_side() -> None:
    tx.manual_seed(2)
    model = gpt(pad_id=PAD).eval()
    wanted = generate(model, SOURCES, max_new_tokens=6)
    for left in (True, False):
        found = generate(model, padded(SOURCES, 9, left), max_new_tokens=6)
        assert [row[0].tokens for row in found] == [row[0].tokens for row in wanted]


def test_a_gpt_fills_its_block_and_no_more() -> None:
    tx.manual_seed(2)
    model = gpt(block_size=10, eos_id=None).eval()
    rows, limits = [[3, 4, 5, 6, 7, 8, 9, 10], [4]], [3, 10]
    found = generate(model, rows, max_new_tokens=limits)
    for row, limit, best in zip(rows, limits, found, strict=True):
        assert len(best[0].tokens) == limit  # no end token: up to the limit
        same(best, reference(whole_prefixes(model, row), -1, limit=limit)[0])
    with pytest.raises(UserError, match="row 1: 4 tokens leave room for 7 new ones"):
        generate(model, [[3], [3, 4, 5, 6]], max_new_tokens=8)


def test_learned_positions_bound_source_and_output() -> None:
    tx.manual_seed(2)
    model = transformer(positions="learned", max_len=9).eval()
    source = [3, 4, 5, 6, 7, 8, 9, 10, 3]
    (row,) = generate(model, [source], max_new_tokens=9)  # shapes are rounded to what there is
    same(row, reference(whole_prefixes(model, source), EOS, limit=9)[0])
    with pytest.raises(UserError, match="row 0: 10 tokens leave room for 0"):
        generate(model, [[*source, 3]], max_new_tokens=1)
    with pytest.raises(UserError, match="room for 9 new ones in this model, not 10"):
        generate(model, [[3]], max_new_tokens=10)


# Running it --------------------------------------------------------------------------------------


def test_a_step_is_traced_once_for_each_shape() -> None:
    model = transformer(vocab_size=30).eval()
    step = Steps.of(model).step
    generate(model, [[5, 6, 7]], beam_size=2, max_new_tokens=24, min_new_tokens=23)
    assert step.stats()["retraces"] == 0
    assert step.stats()["cache_hits"] == 23
    for source, limit in (([8, 9, 10], 20), ([8, 9, 10], 17)):  # rounded up to 24
        generate(model, [source], beam_size=2, max_new_tokens=limit, min_new_tokens=16)
    assert step.stats()["retraces"] == 0
    generate(model, [[8, 9, 10]], max_new_tokens=24)
    assert step.stats()["retraces"] == 1


@pytest.mark.parametrize("mode", ["native", "interp", "replay", "0"])
def test_greedy_steps_follow_each_other_until_a_row_ends(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is asked in between only where a row may be done."""
    monkeypatch.setenv("TX_COMPILE", mode)
    asked = []
    repeat = Compiled.repeat

    def counted(self: Compiled, *args: Any) -> int:
        asked.append(repeat(self, *args))
        return asked[-1]

    monkeypatch.setattr(Compiled, "repeat", counted)
    # 0 1 2 3 end, and in a circle before it: 4 5 6 4 ..., which never ends.
    follows = [1, 2, 3, 7, 5, 6, 4, 0]
    model = Chain(np.eye(8)[follows] * 0.9 + 0.0125)
    found = generate(model, [[3], [1], [4], [0]], max_new_tokens=12)
    assert [row[0].tokens for row in found] == [[], [2, 3], [5, 6, 4] * 4, [1, 2, 3]]
    assert asked == [1, 2, 1, 8]
    asked.clear()
    generate(model, [[4]], max_new_tokens=12, min_new_tokens=12)
    assert asked == [12]


def test_a_row_of_which_nothing_can_live_on_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 0 comes the end or 1, and after 1 nothing but the end: a beam of two has one to finish
    and none to follow."""
    steps = []
    advance = BeamSearch.advance
    monkeypatch.setattr(BeamSearch, "advance", lambda *x: (steps.append(1), advance(*x))[1])
    model = Chain([[0, 0.5, 0, 0.5], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]])
    (row,) = generate(model, [[0]], beam_size=3, max_new_tokens=40, num_return_sequences=3)
    assert [h.tokens for h in row] == [[], [1]] and len(steps) == 2


def test_rows_that_are_done_are_left_out() -> None:
    model = Chain([[0.9, 0.1], [1, 0]])
    generate(model, [[0]] * 8, max_new_tokens=[2] * 7 + [12])
    step = Steps.of(model).step
    assert step.stats()["retraces"] == 1
    logits = next(node for node in step.graph() if node.op.name == "log_softmax")
    assert logits.shape == (1, 2)


def test_shapes_are_few() -> None:
    sizes = [round_up(n) for n in range(1, 1025)]
    assert all(n <= size <= 1.5 * n for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 20


def test_modes_are_as_they_were() -> None:
    model = transformer(dropout=0.5).train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    found = generate(model, SOURCES, max_new_tokens=5)
    assert [module.training for module in model.modules()] == modes
    assert found == generate(model, SOURCES, max_new_tokens=5)  # no dropout
    with pytest.raises(IndexError):
        generate(model, [[99]])
    assert [module.training for module in model.modules()] == modes
    assert tx.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"do_sample": True}])
def test_logits_that_are_no_numbers_are_reported(value: float, options: dict[str, Any]) -> None:
    model = Recurrent(5)
    with tx.no_grad():
        model.words[3] = value  # the second row's source alone has it
        model.words[3, 0] = np.nan
    generate(model, [[0]], max_new_tokens=1, **options)
    with pytest.raises(UserError, match="row 1: the model's logits are not finite"):
        generate(model, [[1], [3]], **options)


def test_a_model_can_be_forgotten_and_copied() -> None:
    model = transformer()
    wanted = generate(model, SOURCES, max_new_tokens=4)
    twin = copy.copy(model)
    assert generate(twin, SOURCES, max_new_tokens=4) == wanted
    assert Steps.of(twin) is not Steps.of(model)
    assert copy.deepcopy(Steps.of(model)) is None
    gone = weakref.ref(model)
    del model, twin
    gc.collect()
    assert gone() is None


def test_the_newest_weights_count() -> None:
    model = Chain([[0, 0.9, 0.1], [0, 0.2, 0.8], [1, 0, 0]])
    assert generate(model, [[0]])[0][0].tokens == [1]
    with tx.no_grad():
        model.table.assign(np.log(np.array([[1e-9, 0.1, 0.9], [0.1, 0.2, 0.7], [1, 1, 1]])))
    assert generate(model, [[0]])[0][0].tokens == []


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([[3]], {"beam_size": 0}, "beam_size = 0 must be 1 or more"),
        ([[3]], {"num_return_sequences": 2}, "needs a beam_size that large, not 1"),
        ([[3]], {"do_sample": True, "beam_size": 2}, "beam_size = 2 must be 1 with do_sample"),
        ([[3]], {"max_new_tokens": 0}, "max_new_tokens = 0 must be 1 or more"),
        ([[3]], {"max_new_tokens": 10**9}, "max_new_tokens = 1000000000 must be at most 1048576"),
        ([[3]], {"max_new_tokens": [3, 4]}, "max_new_tokens has 2 numbers for 1 rows"),
        ([[3]], {"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens = 4"),
        ([[3]], {"length_penalty": float("nan")}, "length_penalty = nan"),
        ([[3]], {"length_penalty": 1e5}, "length_penalty 100000.0 is out of range"),
        ([3, 4], {}, "a list of lists"),
        (np.zeros((1, 2)), {}, "ids: float64"),
        (np.zeros(2, np.int64), {}, r"ids: int64 \(2,\)"),
    ],
)
def test_bad_settings_get_one_line(ids: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        generate(Recurrent(5), ids, **options)
    assert "\n" not in str(caught.value)


def test_no_rows_and_empty_rows() -> None:
    assert generate(transformer(), []) == []
    assert len(generate(transformer(), [[], [3]], max_new_tokens=2)) == 2  # nothing to look at
    with pytest.raises(UserError, match="row 1: an empty prompt"):
        generate(gpt(), [[3], []], max_new_tokens=2)
