"""Which inputs each output of a model depends on, proved by gradients and by other words, and
whether any of these is forbidden: a later one, padding, or one of another row of the batch.

In: a model; a user's own kind of model with the inputs of a call. Out: `Dependencies`, which shows
itself. Called by users and by `tinygrad-tx check`.

The gradient of an output by an input that it cannot see is exactly 0: a mask makes the weight
exactly 0, and what is not read has no path at all. So a gradient for each output, in evaluation
mode and in training mode, tells what it depends on, for those weights and words; a mistake in a
mask shows itself with any. Words are looked up, so gradients are those by the looked-up vectors.
What is computed from their numbers has no gradient: so each word is replaced by another one, too,
and outputs that change depend on it. Padding is not replaced, for masks are made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import nn, random
from ..arguments import shown
from ..autograd import gradients
from ..context import set_grad_enabled
from ..creation import tensor
from ..errors import UserError
from ..models.bert import BERT
from ..models.encoder_decoder import EncoderDecoder
from ..models.language_model import LanguageModel
from ..node import Graph, Node
from ..ops import TAKE, WHERE
from ..tensor import Tensor
from .reach import Dependencies, Input, Leak
from .tiny import tiny
from .weights import learning

_SPECIAL = ("pad_id", "bos_id", "eos_id", "mask_id")
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class _Given(NamedTuple):
    """An input of the call."""

    name: str
    value: Tensor
    causal: bool  # output i may see it up to place i alone
    padding: Mask  # (B, n): True where nobody may look


class _Call(NamedTuple):
    model: nn.Module
    run: Callable[..., Tensor]
    given: tuple[_Given, ...]
    others: tuple[Tensor, ...] = ()  # arguments that are no inputs: masks


class _Run(NamedTuple):
    """A recorded call."""

    out: Tensor  # (B, T, ...)
    sources: tuple[tuple[Node, ...], ...]  # of each input: where its vectors come in
    calls: list[tuple[str, nn.Module, list[Tensor], list[Tensor]]]  # in the order of their ends
    mode: str


def dependencies(
    model: nn.Module,
    *inputs: Tensor,
    causal: bool | None = None,
    pad_id: int | None = None,
    names: Sequence[str] = (),
) -> Dependencies:
    """Which inputs each output position depends on, and the leaks among them.

    model: one of tx.models, of which a tiny copy is looked at (the same classes and settings, small
        sizes; the model itself where its parts are not those of its configuration), with sentences
        of its own; or any Module, with the inputs of a call.
    inputs: of that call: token ids (B, n), integers, which the model looks up in an embedding; or
        floats (B, n, ...), or (B, ...) of two axes, which are one place. The output must be
        floating and have B rows. Two rows show whether rows see each other.
    causal: output i must not depend on places after i of the last input, masks left out. None: so
        it is where the output is as long as that input, but for a BERT.
    pad_id: of inputs; no output may depend on what stands there. None: the configuration's, of a
        model that translates, and of a BERT that is given a mask.
    names: what the inputs are called in what is shown.

    Nothing of the model changes. TypeError and UserError for what cannot be looked at.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"viz.dependencies: {shown(model)} is no Module")
    for i, value in enumerate(inputs):
        if not isinstance(value, Tensor) or value.ndim < 2:
            raise TypeError(f"viz.dependencies: inputs[{i}] must be a Tensor (B, n, ...)")
    state = _random_state()
    try:
        random.set_state(dict.fromkeys(state, (7, 0)))
        call = _with_inputs(model, inputs, pad_id, names) if inputs else _own(model)
        runs = [_recorded(call, training) for training in (False, True)]
        for run in runs:
            _require_sources(call, run)
        if inputs:
            call = _causal(call, runs[0], causal)
        return _judged(call, runs, on_copy=call.model is not model)
    finally:
        random.set_state(state)


# The call ----------------------------------------------------------------------------------------


def _own(model: nn.Module) -> _Call:
    """A call of a model of tx.models, with sentences of its own: the first has padding at the end
    of its source, the second at the end of its target."""
    found: Any = tiny(model)
    if isinstance(found, EncoderDecoder):
        config = found.config
        src, source_padding = _sentences(config, config.src_vocab_size, (3, 5), 5)
        tgt, target_padding = _sentences(config, config.vocab_size, (4, 3), 4)
        tgt[:, 0] = config.bos_id
        return _Call(
            found,
            found,
            (
                _Given("source", _on(found, src), False, source_padding),
                _Given("target", _on(found, tgt), True, target_padding),
            ),
        )
    if isinstance(found, LanguageModel):
        ids, padding = _sentences(found.config, found.config.vocab_size, (5, 5), 5)
        return _Call(found, found, (_Given("text", _on(found, ids), True, padding),))
    if isinstance(found, BERT):
        ids, padding = _sentences(found.config, found.config.vocab_size, (3, 5), 5)
        run = found if found.mlm is None else found.logits
        given = (_Given("text", _on(found, ids), False, padding),)
        return _Call(found, run, given, (_on(found, ~padding),))
    raise UserError(
        f"viz.dependencies: give the inputs of a call of this {type(model).__name__}, Tensors "
        "(B, n, ...); only models of tx.models are called with sentences of their own"
    )


def _sentences(
    config: Any, vocab_size: int | None, lengths: tuple[int, ...], width: int
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Mask]:
    """Ids (B, width) of words that are no special tokens and differ, and where there is padding."""
    special = {getattr(config, name, None) for name in _SPECIAL}
    words = [i for i in range(vocab_size or config.vocab_size) if i not in special]
    if not words:
        raise UserError("viz.dependencies: the vocabulary has special tokens alone")
    places = np.arange(len(lengths) * width).reshape(len(lengths), width) % len(words)
    padding = np.arange(width) >= np.array(lengths)[:, None]
    pad_id = getattr(config, "pad_id", None)
    return np.where(padding, pad_id or 0, np.array(words)[places]), padding


def _on(model: nn.Module, array: Any) -> Tensor:
    return tensor(array, device=next(model.parameters()).device)


def _with_inputs(
    model: nn.Module, inputs: Sequence[Tensor], pad_id: int | None, names: Sequence[str]
) -> _Call:
    if pad_id is None and isinstance(model, (EncoderDecoder, BERT)) and len(inputs) > 1:
        pad_id = model.config.pad_id
    given = []
    for i, value in enumerate(inputs):
        padding = np.zeros((value.shape[0], _length(value)), bool)
        if value.dtype.kind == "i" and value.ndim == 2 and pad_id is not None:
            padding = value.numpy() == pad_id
            if i and isinstance(model, EncoderDecoder):  # a target may begin with padding
                padding[:, 0] = False
        if value.dtype.is_floating_point:
            value = value.detach().requires_grad_()
        name = names[i] if i < len(names) else f"input {i}" if len(inputs) > 1 else "input"
        given.append(_Given(name, value, False, padding))
    return _Call(model, model, tuple(given))


def _length(x: Tensor) -> int:
    """How many places a row has: floats of two axes are one."""
    return x.shape[1] if x.ndim > 2 or not x.dtype.is_floating_point else 1


def _causal(call: _Call, run: _Run, wanted: bool | None) -> _Call:
    """The call, its last input causal that vectors come from, if that is wanted."""
    if wanted is None:
        wanted = not isinstance(call.model, BERT)
    elif wanted and isinstance(call.model, BERT):
        raise UserError("viz.dependencies: a BERT reads its text as a whole; causal=False")
    last = max(at for at, source in enumerate(run.sources) if source)
    given = [*call.given]
    if wanted and 1 < _length(given[last].value) == _length(run.out):
        given[last] = given[last]._replace(causal=True)
    return call._replace(given=tuple(given))


# A run -------------------------------------------------------------------------------------------


def _recorded(call: _Call, training: bool) -> _Run:
    """A run of the call, and what each module was called with and gave."""
    names = {module: name for name, module in call.model.named_modules()}
    calls: list[tuple[str, nn.Module, list[Tensor], list[Tensor]]] = []

    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        taken = [*_tensors((args, kwargs))]
        calls.append((names[module], module, taken, [*_tensors(output)]))

    with ExitStack() as hooks, set_grad_enabled(True), learning(call.model):
        for module in names:
            hooks.enter_context(module.register_forward_hook(keep, with_kwargs=True))
        out = _called(call, training)
    rows = call.given[0].value.shape[0]
    if not isinstance(out, Tensor) or not out.dtype.is_floating_point or out.shape[:1] != (rows,):
        raise UserError(
            f"viz.dependencies: {type(call.model).__name__} gives {shown(out)}; it must give one "
            f"floating Tensor (B, T, ...), with B = {rows} as in the inputs"
        )
    graph = Graph([out.node])
    sources = tuple(_sources(given.value, graph) for given in call.given)
    return _Run(out, sources, calls, "training" if training else "evaluation")


def _called(call: _Call, training: bool) -> Any:
    """What the call gives, from the same random numbers each time."""
    random.set_state(dict.fromkeys(_random_state(), (7, 0)))
    with _unchanged(call.model):
        call.model.train(training)
        return call.run(*(given.value for given in call.given), *call.others)


def _require_sources(call: _Call, run: _Run) -> None:
    for given, found in zip(call.given, run.sources, strict=True):
        if not found and (given.causal or not any(run.sources)):
            raise UserError(
                f"viz.dependencies: {given.name} is not looked up in an embedding, so there is "
                "nothing to take gradients by; look it up by nn.Embedding or weight[ids], or give "
                "vectors in its place"
            )


def _with_another_word(call: _Call, at: int, row: int, place: int) -> _Call | None:
    """The same call but for one word of an input; None where there is no other word."""
    given = call.given[at]
    ids = given.value.numpy()
    special = {getattr(getattr(call.model, "config", None), name, None) for name in _SPECIAL}
    others = set(ids[~given.padding].tolist()) - {*special, *ids[given.padding].tolist()}
    words = sorted(others - {int(ids[row, place])})
    if not words:
        return None
    changed = ids.copy()
    changed[row, place] = words[-1]
    value = tensor(changed, device=given.value.device).to(given.value.dtype)
    every = [*call.given]
    every[at] = given._replace(value=value)
    return call._replace(given=tuple(every))


def _sources(value: Tensor, graph: Graph) -> tuple[Node, ...]:
    """The nodes by which an input comes in: itself, or what is looked up by it."""
    if value.dtype.is_floating_point:
        return (value.node,)
    if value.dtype.kind != "i":
        return ()  # a mask
    lookups = [node for node in graph if node.op is TAKE and node.requires_grad]
    # By the ids, or by a copy of them.
    found = [n for n in lookups if n.srcs[1] is value.node or _same(n.srcs[1], value.node)]
    users = graph.users()
    return tuple(_with_padding(node, users[node]) for node in found)


def _with_padding(lookup: Node, users: Sequence[Node]) -> Node:
    """What is looked up, the vectors of padding too, which nn.Embedding lets no gradient through
    to: it takes these from a copy."""
    for user in users:
        if user.op is WHERE and any(
            not src.requires_grad and _same(src, lookup) for src in user.srcs
        ):
            return user
    return lookup


def _same(a: Node, b: Node) -> bool:
    return a.shape == b.shape and bool((Tensor(a).numpy() == Tensor(b).numpy()).all())


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)) and depth:
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _tensors(entry, depth - 1)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Inside, the model may run in any mode; afterwards modes and buffers are what they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, mode in modes:  # parents come before their children
            module.train(mode)
        for buffer, value in buffers:
            buffer.assign(value)


def _random_state() -> dict[str, tuple[int, int]]:
    random.generator("cpu")  # there is one at least
    return random.get_state()


# Judging -----------------------------------------------------------------------------------------


def _judged(call: _Call, runs: Sequence[_Run], on_copy: bool) -> Dependencies:
    """What is allowed and what is not."""
    out = runs[0].out
    rows, length = out.shape[0], _length(out)
    own = next((g.padding for g in call.given if g.causal and g.padding.shape[1] == length), None)
    if own is None:  # a text that is read as a whole
        own = next((g.padding for g in call.given if g.padding.shape[1] == length), None)
    asked = np.ones((rows, length), bool) if own is None else ~own
    inputs: list[Input] = []
    leaks: dict[tuple[str, str], Leak] = {}
    mixed = np.eye(rows, dtype=bool)
    reached = [_reached(run, call) for run in runs]  # per run and input: (B, T, B', n)
    _add_words(reached, runs, call)
    for at, given in enumerate(call.given):
        if not runs[0].sources[at]:
            continue
        n = given.padding.shape[1]
        later = np.arange(n) > np.arange(length)[:, None] if given.causal else (
            np.zeros((length, n), bool)
        )  # fmt: skip
        for run, found in zip(runs, reached, strict=True):
            seen = found[at]
            same = np.stack([seen[b, :, b] for b in range(rows)])  # (B, T, n)
            others = seen & ~np.eye(rows, dtype=bool)[:, None, :, None]
            mixed |= seen.any((1, 3))
            wrong = {
                "future": same & later & asked[:, :, None],
                "padding": same & given.padding[:, None] & asked[:, :, None] & ~later,
                "rows": others & asked[:, :, None, None],
            }
            for kind, places in wrong.items():
                if places.any() and (kind, given.name) not in leaks:
                    leaks[kind, given.name] = _leak(kind, np.argwhere(places)[0], at, run, call)
        seen = np.logical_or.reduce([found[at][0, :, 0] for found in reached])
        forbidden = (later | given.padding[0]) & asked[0, :, None]
        inputs.append(Input(given.name, seen, forbidden, given.padding[0], given.causal))
    return Dependencies(
        type(call.model).__name__, tuple(inputs), mixed, tuple(leaks.values()), on_copy
    )


def _reached(run: _Run, call: _Call) -> list[Mask]:
    """Of each input: which of its places each output depends on, (B, T, B', n)."""
    rows, length = run.out.shape[0], _length(run.out)
    found = [np.zeros((rows, length, *given.padding.shape), bool) for given in call.given]
    for b in range(rows):
        for t in range(length):
            where = np.zeros((rows, length), bool)
            where[b, t] = True
            for at, seen in enumerate(_seen_by(run.out, where, run, call)):
                found[at][b, t] = seen
    return found


def _add_words(reached: Sequence[list[Mask]], runs: Sequence[_Run], call: _Call) -> None:
    """Add what changes with words to what gradients have found. The last run, in training mode,
    does all that the others do: these are asked where it shows what no gradient did."""
    for at, given in enumerate(call.given):
        if not (runs[0].sources[at] and given.value.dtype.kind == "i" and given.value.ndim == 2):
            continue
        changed = _changed_by_words(runs[-1], call, at)
        hidden = changed & ~reached[-1][at]
        reached[-1][at] |= changed
        for run, found in zip(runs[:-1], reached[:-1], strict=True):
            if hidden.any():
                found[at] |= _changed_by_words(run, call, at)


def _changed_by_words(run: _Run, call: _Call, at: int) -> Mask:
    """Which outputs change with each word of an input, (B, T, B', n)."""
    padding = call.given[at].padding
    found = np.zeros((run.out.shape[0], _length(run.out), *padding.shape), bool)
    for row, place in np.argwhere(~padding):
        other = _with_another_word(call, at, row, place)
        if other is not None:
            with set_grad_enabled(False):
                out = _called(other, run.mode == "training")
            found[:, :, row, place] = _differs(run.out, out, found.shape[:2])
    return found


def _differs(a: Tensor, b: Tensor, places: tuple[int, ...]) -> Mask:
    """At which places, the first axes, two values differ; NaN is NaN."""
    x, y = a.numpy(), b.numpy()
    equal = (x == y) | ((x != x) & (y != y))
    return np.asarray(~equal.reshape(*places, -1).all(-1))


def _seen_by(out: Tensor, where: Mask, run: _Run, call: _Call) -> list[Mask]:
    """Of each input: which of its places (B, n) a value depends on at one or more of (B, T)."""
    none = [np.zeros(given.padding.shape, bool) for given in call.given]
    if not out.node.requires_grad:
        return none
    rng = np.random.default_rng(11)
    # A sum of all numbers of a place may be constant, as after a LayerNorm: any other will do.
    weights = rng.uniform(0.5, 1.5, out.shape) * rng.choice([-1.0, 1.0], out.shape)
    weights *= where.reshape(where.shape + (1,) * (out.ndim - where.ndim))
    cotangent = tensor(weights, device=out.device).to(out.dtype)
    nodes = [node for source in run.sources for node in source]
    got = gradients([out.node], [cotangent], nodes, through=True)
    for mask, source in zip(none, run.sources, strict=True):
        for node in source:
            if node in got:
                values = got[node].numpy().reshape(*mask.shape, -1)
                mask |= (values != 0).any(-1)  # NaN is no proof, either
    return none


# Where a leak comes in ---------------------------------------------------------------------------


def _leak(kind: str, place: Any, at: int, run: _Run, call: _Call) -> Leak:
    """The leak at a place: (row, output, input), of rows (row, output, other row, input)."""
    row, output, *rest = place.tolist()
    other = rest[0] if kind == "rows" else row
    module = _entry(kind, (row, other, rest[-1]), at, run, call)
    return Leak(kind, call.given[at].name, row, output, other, rest[-1], module, run.mode)


def _entry(kind: str, place: tuple[int, int, int], at: int, run: _Run, call: _Call) -> str:
    """The first module that gives what it must not know, and was not given it; "" if none is."""
    _, row, column = place

    def knows(value: Tensor) -> bool:
        where = _forbidden(value, kind, place, at, run, call)
        if where is None or not value.dtype.is_floating_point or not value.node.requires_grad:
            return False
        return bool(_seen_by(value, where, run, call)[at][row, column])

    for name, module, taken, gave in run.calls:
        if any(map(knows, gave)) and not any(map(knows, taken)):
            return f"{name} ({type(module).__name__})" if name else ""
    # It comes in by numbers of words, which no gradient goes through.
    ids = call.given[at].value.dtype.kind == "i" and not call.given[at].padding[row, column]
    then = _with_another_word(call, at, row, column) if ids else None
    other = None if then is None else _recorded(then, run.mode == "training")
    if other is None or len(other.calls) != len(run.calls):
        return ""

    def changed(values: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
        for a, b in zip(values, others, strict=False):
            where = _forbidden(a, kind, place, at, run, call) if a.shape == b.shape else None
            if where is not None and bool((_differs(a, b, a.shape[:2]) & where).any()):
                return True
        return False

    for (name, module, taken, gave), (_, _, taken2, gave2) in zip(
        run.calls, other.calls, strict=True
    ):
        if changed(gave, gave2) and not changed(taken, taken2):
            return f"{name} ({type(module).__name__})" if name else ""
    return ""


def _forbidden(
    value: Tensor, kind: str, place: tuple[int, int, int], at: int, run: _Run, call: _Call
) -> Mask | None:
    """The places of a value inside, its first two axes, that must not know an input's place; None
    where nobody can tell."""
    row, _, column = place
    rows = run.out.shape[0]
    if value.ndim < 2:
        return None
    given = call.given[at]
    where = np.zeros(value.shape[:2], bool)
    if value.shape[0] == rows:
        length = value.shape[1]
        if kind == "rows" or (kind == "padding" and length != given.padding.shape[1]):
            where[row] = True
        elif length != given.padding.shape[1]:
            return None
        elif kind == "padding":
            where[row] = ~given.padding[row]
        else:
            where[row, :column] = True
    elif value.ndim == 3 and value.shape[1] == rows and kind != "future":
        where[:, row] = True  # the states of recurrent layers (layers, B, D)
    else:
        return None
    return where
