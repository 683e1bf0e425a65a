"""outlook: a step of training on paper: what it moves, multiplies and keeps, before any run.

In: a Config, or the name of a work (works.py). Out: an Outlook. The model is made on device "meta",
so nothing of its size is allocated. Called by `tinygrad-tx plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from .. import backends, random
from ..autocast import named
from ..backends.gpus import GPU
from ..backends.target import Target
from ..compiler.inspect.estimate import Estimate, Memory, Work, estimate
from ..compiler.inspect.machine import Machine
from ..creation import get_default_device, set_default_device, zeros, zeros_like
from ..distributed import world
from ..distributed.paper import COMPUTE, Event
from ..dtypes import int64
from ..errors import UserError
from ..models import registry
from ..random import Rows
from ..tensor import Tensor
from .schema import Config
from .step import Trainable
from .works import begin, sized


@dataclass(frozen=True)
class Outlook:
    """A step. batch, length: rows and positions of each batch, of which there are `accumulate` in a
    step; parts: the calls that make a step, and how often each is made."""

    name: str
    parameters: int
    batch: int
    length: int
    accumulate: int
    parts: tuple[tuple[int, Estimate], ...]

    @property
    def tokens(self) -> int:
        """Positions in a step; of sentence pairs, on either side."""
        return self.batch * self.length * self.accumulate

    @property
    def works(self) -> tuple[Work, ...]:
        """The launches of a step in their order, with how often each runs in it."""
        return tuple(
            w._replace(times=times * w.times) for times, part in self.parts for w in part.works
        )

    @property
    def launches(self) -> int:
        return sum(times * part.launches for times, part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(times * part.bytes for times, part in self.parts)

    @property
    def flops(self) -> int:
        return sum(times * part.flops for times, part in self.parts)

    @property
    def memory(self) -> Memory:
        """That of the call which takes most."""
        return max((part.memory for _, part in self.parts), key=lambda memory: memory.peak)

    @property
    def precision(self) -> str:
        return self.parts[0][1].precision

    @property
    def stand_in(self) -> str:
        """The device that it was planned for where there are no kernels for the one asked for."""
        return self.parts[0][1].stand_in

    @property
    def opaque(self) -> tuple[str, ...]:
        """The ops that no kernel does."""
        return tuple(dict.fromkeys(chain.from_iterable(part.opaque for _, part in self.parts)))

    def seconds(self, gpu: GPU) -> float:
        """The least time that a step takes."""
        return sum(times * part.seconds(gpu) for times, part in self.parts)

    def on(self, machine: Machine) -> float:
        """The seconds that a step takes on this machine, as it was measured. It was planned for
        here."""
        return sum(times * part_seconds(part, machine) for times, part in self.parts)

    def events(self, seconds: Callable[[Work], float], total: float) -> Iterator[Event]:
        """A step of so many seconds in all, in its order. seconds: of one time of a launch; what a
        step takes beside its launches comes first."""
        yield Event(COMPUTE, total - sum(w.times * seconds(w) for w in self.works))
        for w in self.works:
            for _ in range(w.times if w.given else 0):
                yield Event(w.ops, w.given)
            yield Event(COMPUTE, w.times * seconds(w))

    def memory_on(self, machine: Machine, plans: int = 1, made: bool | None = None) -> float:
        """The bytes that a process takes at most which trains here. plans: of so many shapes; made:
        whether it makes code; by default, if there is some to be made."""
        own = machine.bytes + plans * self.launches_planned * machine.launch_bytes
        made = self.fresh if made is None else made
        return own + made * machine.making_bytes + self.memory.peak

    @property
    def launches_planned(self) -> int:
        """Launches that stand in plans, those in loops once."""
        return sum(len(part.works) for _, part in self.parts)

    @property
    def fresh(self) -> bool:
        """Whether code of its kernels has to be made."""
        return any(part.fresh for _, part in self.parts)


def part_seconds(part: Estimate, machine: Machine) -> float:
    """The seconds of a call."""
    own = machine.step + machine.tensor * part.tensors
    return own + sum(w.times * machine.launch(w.load) for w in part.works if w.load is not None)


def of_work(
    name: str,
    *,
    batch: int | None = None,
    length: int | None = None,
    precision: str = "fp32",
    device: str = "cuda",
    here: bool = False,
    ranks: int = 1,
) -> Outlook:
    """A step of a work, in other batches where they are given, as a device would run it, or (here)
    this machine; or what one of so many ranks does of it, of which each has such a batch. UserError
    for an unknown name."""
    options: dict[str, Any] = {"precision": precision, "device": device, "here": here}
    return of_table(name, sized(name, batch, length), ranks=ranks, **options)


def of_table(
    name: str,
    table: Mapping[str, Any],
    *,
    precision: str = "fp32",
    device: str = "cuda",
    here: bool = False,
    ranks: int = 1,
) -> Outlook:
    """A step of what works.toml could hold; the rest as of_work."""
    options: dict[str, Any] = {"precision": precision, "device": device}
    with on_meta(), _one_of(ranks, table["batch"]):
        model, step = begin(table, named(precision))
        inputs = _ids(2 if table["kind"] == "gpt" else 3, table["batch"], table["length"])
        if ranks > 1:
            inputs, alone = [zeros(()), *inputs], step
            step = lambda weight, *batch: alone(*batch, weight=weight)  # noqa: E731
        part = estimate(step, *inputs, here=_machine(here), **options)
    return Outlook(name, _count(model), table["batch"], table["length"], 1, ((1, part),))


def of_config(
    config: Config,
    *,
    batch: int | None = None,
    length: int | None = None,
    vocab: int | None = None,
    precision: str = "fp32",
    device: str = "cuda",
    here: bool = False,
    shapes: Sequence[Sequence[int]] = (),
    ranks: int = 1,
) -> Outlook:
    """A step of a run as it is configured, as a device would run it, or (here) this machine. On
    full batches: of data.max_len tokens in a row, and as many rows as data.max_tokens lets in,
    where nothing else is given. shapes: of what a batch consists of, if that is known. ranks: what
    one of so many does of it, of which each has such a batch.

    vocab: pieces of the tokenizer, by default as many as it may have. UserError for a length that
    the model has no positions for.
    """
    length = length or config.data.max_len
    batch = batch or max(1, config.data.max_tokens // length)
    task, accumulate = config.model.task, config.optim.accumulate
    tokens = registry.Tokens(vocab or config.tokenizer.vocab_size)
    longest = config.model.of_model().n_positions
    if longest is not None and length > longest:
        raise UserError(
            f"a length of {length}, but this model has {longest} positions: choose a shorter one"
        )
    config = replace(config, train=replace(config.train, precision=named(precision)))
    with on_meta(), _one_of(ranks, batch):
        trainable = Trainable(registry.build(asdict(config.model), tokens), config)
        trainable.model.train()
        inputs = _ids(3 if task == "translate" else 2, batch, length)
        if shapes:
            inputs = [zeros(*shape, dtype=int64) for shape in shapes]
        options: dict[str, Any] = {"precision": precision, "device": device, "here": _machine(here)}
        parts = tuple(_parts(trainable, inputs, accumulate, options))
    return Outlook(config.preset, _count(trainable.model), batch, length, accumulate, parts)


def _parts(
    trainable: Trainable, inputs: Sequence[Tensor], accumulate: int, options: dict[str, Any]
) -> Iterator[tuple[int, Estimate]]:
    """The calls that make a step: one, or one for each batch and one that takes the step."""
    weight = zeros((), dtype=trainable.optimizer.parameters[0].dtype)
    if accumulate == 1 and world.current().size > 1:
        yield 1, estimate(trainable._step_of_part, weight, *inputs, **options)
        return
    if accumulate == 1:
        yield 1, estimate(trainable._step, *inputs, **options)
        return
    yield 1, estimate(trainable._add, weight, *inputs, **options)
    for p in trainable.optimizer.parameters:
        p.grad = zeros_like(p)
    yield accumulate - 1, estimate(trainable._add, weight, *inputs, **options)
    yield 1, estimate(trainable._update, **options)


def _ids(count: int, batch: int, length: int) -> list[Tensor]:
    """So many Tensors of token ids."""
    return [zeros(batch, length, dtype=int64) for _ in range(count)]


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


@contextmanager
def _one_of(ranks: int, rows: int) -> Iterator[None]:
    """Inside, this is the last of so many ranks, and has so many rows of their batch."""
    share = Rows(rows * (ranks - 1), rows, rows * ranks)
    with world.pretended(ranks), random.drawing_for(share):
        yield


def _machine(here: bool) -> Target | None:
    """This machine, if it is wanted. NativeUnavailable where no code is made for it."""
    return backends.target_of(backends.devices()[0]) if here else None


@contextmanager
def on_meta() -> Iterator[None]:
    """New Tensors have no values inside, and the random numbers of others stay as they were."""
    before, drawn = get_default_device(), random.get_state()
    set_default_device("meta")
    try:
        yield
    finally:
        set_default_device(before)
        if drawn:
            random.set_state(drawn)
