"""tx.compile: a function that is traced once for each kind of call, then run from its plan.

In: a Python function on Tensors. Out: a Compiled, called like it. A call whose guards fail traces
again and says why (logger "tinygrad_tx.compiler", or TX_DEBUG=1); the number of plans kept is
bounded, the least recently used one goes first. TX_COMPILE=0 runs every function eagerly.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any, overload
from weakref import WeakSet

import numpy as np

from .. import backends, settings
from ..arguments import shown
from ..context import PRECISION, as_given, current_trace, grad_enabled
from ..creation import get_default_device
from ..errors import NativeUnavailable, NoKernel, TraceError, UserError
from ..mistakes import missing
from ..node import Graph, Node
from ..tensor import Tensor
from ..transforms import differentiating
from .capture.callables import check_callable, name_of
from .capture.guards import Match, difference
from .capture.trace import Signature, Traced, trace
from .inspect import debug, explore, timeline
from .inspect.explain import Explanation, Source, require_source, short
from .keys import key as key_of
from .rewrite.registered import current
from .run.execution import Execution
from .run.garbage import REST
from .run.host_part import device_of
from .run.recording import Budget
from .run.replay import Replay
from .run.turn import TURN

MAX_PLANS = 64
"""So many recorded calls does a compiled function keep; those not used for longest go first."""
MODES = ("", "0", "native", "interp", "replay")  # of TX_COMPILE
Recorded = Replay | Execution
_log = logging.getLogger("tinygrad_tx.compiler")
_ALL: WeakSet[Compiled] = WeakSet()


class Compiled:
    """A traced function. Made by tx.compile.

    Guards: the argument tree, shapes, dtypes, devices and requires_grad of argument and captured
    Tensors, whether their grad is None, static (Python) arguments, train/eval, no_grad, autocast,
    the default device. Other Python values that the function reads are constants of its trace.
    Calls from several threads are serialised.
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        functools.update_wrapper(self, f, updated=())
        self._f, self._name = f, name_of(f)
        self._lock = RLock()
        _ALL.add(self)
        self._plans: OrderedDict[Any, list[Recorded]] = OrderedDict()
        self._last: Recorded | None = None
        self._stats = {"trace_s": 0.0, "rewrite_s": 0.0, "compile_s": 0.0}
        self._stages: dict[str, float] = {}
        self._hits = self._traces = 0

    def __get__(self, instance: Any, owner: type) -> Any:
        """As a method: self is one more static argument."""
        return self if instance is None else Method(self, instance)

    def __getattr__(self, name: str) -> Any:
        """The attributes of the function, such as a compiled Module's parameters()."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        try:
            return getattr(self._f, name)
        except AttributeError:
            if hasattr(type(self._f), name):  # it is there, and has failed
                raise
            known = {*dir(type(self)), *dir(self._f)}
            raise missing(self, f"the compiled {self._name}", name, known) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """As __getattr__: `training` of a compiled Module is the Module's."""
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._f, name, value)

    def __repr__(self) -> str:
        name, last = self._short_name, self._last
        if last is None:
            return f"Compiled({name}, not called yet)"
        what = "op call" if isinstance(last, Replay) else "kernel"
        plans, kernels = sum(map(len, self._plans.values())), last.kernels()
        return (
            f"Compiled({name}, {_some(plans, 'plan')}; the last: {_some(kernels, what)}, "
            f"{short(last.peak_bytes()) or 0} bytes, {_some(last.runs, 'run')})"
        )

    @property
    def _short_name(self) -> str:
        """Without the functions that it was defined in."""
        return self._name.rpartition("<locals>.")[2]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(args, kwargs, None)

    def repeat(self, times: int, until: Tensor, /, *args: Any, **kwargs: Any) -> int:
        """Call it again and again with the same arguments, `times` times at most, until it has made
        the 0-d Tensor `until` true; the number of calls. Their results are dropped.

        Where all that a call changes is written in place, the next one starts at once, without a
        look at its arguments.
        """
        if isinstance(times, bool) or not isinstance(times, (int, np.integer)):
            raise TypeError(f"repeat: times must be a whole number, not {type(times).__name__}")
        if times < 1:
            raise ValueError(f"repeat: times is {times}; it must be 1 or more")
        if not isinstance(until, Tensor) or until.shape != ():
            wanted = "a 0-d Tensor, true to end it"
            raise TypeError(f"repeat: until must be {wanted}, not {shown(until)}")
        budget = Budget(times, until)
        while True:
            self._call(args, kwargs, budget)
            if not budget.again():
                return times - budget.left

    def _call(self, args: Any, kwargs: Any, budget: Budget | None) -> Any:
        # Inside another trace it becomes part of that. Inside a run (an op of one's own may call
        # anything) the memory for another one is taken. What a plan gives has no history: where
        # one is wanted, the function runs as it is written.
        inside = current_trace() is not None or TURN.mine or differentiating()
        if not inside and settings.get("TX_COMPILE") != "0":
            with self._lock:
                flat: list[Any] = []
                key = _key(args, kwargs, flat)
                if key is not None:
                    return self._planned(key, flat, args, kwargs, budget)
            if debug.level() >= debug.RETRACES:
                debug.say(f"{self._name}: runs as it is written: an argument has a history")
        if budget is not None:
            budget.left -= 1
        return self._f(*args, **kwargs)

    def _planned(
        self, key: Any, flat: list[Any], args: Any, kwargs: Any, budget: Budget | None
    ) -> Any:
        """Run the plan of a call, which is made where there is none."""
        with TURN:  # from guards to run: so no other run changes a captured Tensor in between
            plan, match = self._find(key, flat)
            if plan is not None and match is not None:
                self._hits += 1
                self._last = plan
                return plan.run(match, budget)
        plan = self._last = self._make(key, args, kwargs, flat)
        with TURN:
            match = plan.inputs.find(flat)
            if match is None:  # another thread has changed what the trace has seen
                raise TraceError(f"{self._name}: {plan.inputs.broken(flat)}")
            return plan.run(match, budget)

    def graph(self) -> Graph:
        """The graph of the plan that ran last."""
        return self._plan().graph

    def explain(self, source: Source = False) -> Explanation:
        """The plan that ran last, in words: the ten slowest kernels, then all with their ops,
        shapes, work, times and source lines, and the ops that no kernel does. As wide as the
        terminal; in a notebook it shows itself. source: also what each kernel computes, under the
        number that it has in the table; "asm": and the machine code of each (on a GPU PTX).

        TraceError before the first call; UserError for another source."""
        require_source(source)
        return Explanation(f"{self._short_name}: {self._plan().explain(source)}")

    def describe(self) -> dict[str, Any]:
        """The plan that ran last as plain data, as JSON has it: modules, the graph after each
        stage, kernels, memory. docs/explorer.md tells of its fields."""
        return self._plan().describe()

    def explore(self, path: str | Path) -> Path:
        """Write describe() as one HTML page to look around in, which needs no network; gives path
        back."""
        return explore.save(self.describe(), path)

    def trace(self, path: str | Path) -> Path:
        """Write when each wave of the last timed run ran, and what each thread did, as a Chrome
        trace (JSON, for ui.perfetto.dev or chrome://tracing); gives path back. The first run and
        the third of a plan are timed. UserError where none was."""
        return timeline.save(self._plan(), self._name, path)

    def stats(self) -> dict[str, Any]:
        """trace_s, rewrite_s, compile_s (seconds in all), stages (seconds of each stage of
        pipeline.py), kernels and peak_bytes (of the plan that ran last), cache_hits (calls without
        a trace), retraces (traces after the first)."""
        plan = self._last
        return {
            **self._stats,
            "stages": dict(self._stages),
            "kernels": plan.kernels() if plan else 0,
            "peak_bytes": plan.peak_bytes() if plan else 0,
            "cache_hits": self._hits,
            "retraces": max(0, self._traces - 1),
        }

    def _plan(self) -> Recorded:
        if self._last is None:
            if settings.get("TX_COMPILE") == "0":
                raise TraceError(
                    "with TX_COMPILE=0 a function runs as it is written: it has no plan"
                )
            raise TraceError("nothing is known of a compiled function before its first call")
        return self._last

    def _find(self, key: Any, flat: list[Any]) -> tuple[Recorded | None, Match | None]:
        """The plan that serves a call, and the Match of its inputs."""
        plans = self._plans.get(key, [])
        for i, plan in enumerate(plans):
            match = plan.inputs.match(flat)
            if match is not None:
                if i:
                    plans.insert(0, plans.pop(i))  # the one used last stands first
                self._plans.move_to_end(key)
                return plan, match
        return None, None

    def _make(self, key: Any, args: Any, kwargs: Any, flat: list[Any]) -> Recorded:
        if self._traces:
            self._report(key, flat)
        start = time.perf_counter()
        with REST:
            traced = trace(self._f, args, kwargs)
            middle = time.perf_counter()
            with as_given():  # every cast has been recorded
                plan = _plan(traced)
        self._stats["trace_s"] += middle - start
        self._stats["rewrite_s"] += plan.rewrite_seconds
        self._stats["compile_s"] += time.perf_counter() - middle - plan.rewrite_seconds
        for name, seconds in plan.stages.items():
            self._stages[name] = self._stages.get(name, 0.0) + seconds
        self._traces += 1
        self._plans.setdefault(key, []).insert(0, plan)
        self._plans.move_to_end(key)
        while sum(map(len, self._plans.values())) > MAX_PLANS:
            oldest = next(iter(self._plans))
            self._plans[oldest].pop()
            if not self._plans[oldest]:
                del self._plans[oldest]
        return plan

    def _report(self, key: Any, flat: list[Any]) -> None:
        """Say why the plans at hand do not serve this call."""
        near = self._plans.get(key)
        if near:
            why = near[0].inputs.broken(flat)
        else:
            why = (
                _difference(next(reversed(self._plans)), key) if self._plans else "no plan is kept"
            )
        message = f"{self._name}: traced again: {why}"
        _log.info(message)
        if debug.level() >= debug.RETRACES:
            debug.say(message)


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _renew() -> None:
    """In a child process: a lock may have been held by a thread that is not there."""
    for compiled in _ALL:
        compiled._lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class Method:
    """A compiled method of an object: a Compiled whose first argument is given."""

    def __init__(self, compiled: Compiled, instance: Any) -> None:
        self._compiled, self._instance = compiled, instance

    def __repr__(self) -> str:
        return f"{self._compiled!r} of a {type(self._instance).__name__}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(self._instance, *args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """As bound methods: of one function and one object."""
        if not isinstance(other, Method):
            return NotImplemented
        return self._compiled is other._compiled and self._instance is other._instance

    def __hash__(self) -> int:
        return hash((id(self._compiled), id(self._instance)))

    def repeat(self, times: int, until: Tensor, /, *args: Any, **kwargs: Any) -> int:
        """As Compiled.repeat."""
        return self._compiled.repeat(times, until, self._instance, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """explain(), graph(), stats() and the like are those of the function, for all objects
        together."""
        if name == "_compiled":
            raise AttributeError(name)
        return getattr(self._compiled, name)


@overload
def compile(f: None = None) -> Callable[[Callable[..., Any]], Compiled]: ...
@overload
def compile(f: Callable[..., Any]) -> Compiled: ...
def compile(f: Callable[..., Any] | None = None) -> Any:
    """Trace f at its first call, and run it from the recorded plan from then on.

    Use it as a decorator (`@tx.compile` or `@tx.compile()`) or a call. f must be a function of
    Tensors (and of static Python values), a method or a Module, whose Python code does the same at
    each call; whatever it changes must be a Tensor. A Compiled is given back as it is.

    Raises TypeError for anything else: a class, a generator or async function, a Tensor.
    """
    if f is None:
        return compile
    if isinstance(f, (Compiled, Method)):
        return f
    check_callable(f)
    return Compiled(f)


def check_environment() -> None:
    """UserError where TX_COMPILE or TX_DEBUG says what cannot be. For programs that rather know
    before they begin."""
    chosen_mode()
    debug.level()


def chosen_mode() -> str:
    """The mode that TX_COMPILE asks for."""
    mode = settings.get("TX_COMPILE")
    if mode not in MODES:
        raise UserError(f"TX_COMPILE={mode}: it must be 0, interp, replay or native")
    return mode


def _plan(traced: Traced) -> Recorded:
    """The recorded call as a plan: of kernels where its device has them for it and nothing is
    empty, otherwise op by op."""
    mode = chosen_mode()
    graph = Graph(traced.ends)
    if not traced.ends:
        return Replay(traced, "it computes nothing")
    device = device_of(graph)
    if mode == "replay":
        return Replay(traced, "TX_COMPILE=replay")
    if any(map(_empty, graph)):
        return Replay(traced, "a value has no elements")
    interpreter, why = backends.target_of(device, interpreted=True), _no_kernels(device)
    if mode != "interp":
        try:
            target = backends.target_of(device)
            return Replay(traced, why) if target is None else Execution(traced, target, device)
        except NoKernel as error:
            return Replay(traced, str(error))
        except NativeUnavailable as error:
            if settings.get("TX_TARGET"):
                raise
            why = str(error)
            slow = "op by op" if interpreter is None else "in NumPy, which is slow"
            warnings.warn(f"{error}; kernels run {slow}", stacklevel=6)
    return Replay(traced, why) if interpreter is None else Execution(traced, interpreter, device)


def _no_kernels(device: str) -> str:
    return f'device "{device}" runs no kernels here' if device else "it is of several devices"


def _empty(node: Node) -> bool:
    return any(prod(s.shape) == 0 for s in node.specs)


def _key(args: Any, kwargs: Any, flat: list[Any]) -> Any:
    """The key of a call's arguments, compared before the guards of any plan; None if an argument
    has a history through which gradients may flow. flat: gets the arguments' leaves."""
    nesting: list[Any] = []
    _flatten(args, flat, nesting)
    _flatten(kwargs, flat, nesting)
    seen: dict[int, int] = {}
    parts: list[Any] = []
    records = grad_enabled()
    for i, arg in enumerate(flat):
        if isinstance(arg, Tensor):
            node = arg._node
            if records and node.requires_grad and not node.is_leaf:
                return None
            first = seen.setdefault(id(arg), i)
            grad = arg._grad is not None
            parts.append((type(arg), first, node.spec, node.device, node.requires_grad, grad))
        elif isinstance(arg, np.ndarray):
            raise TraceError(
                f"argument {i} of a compiled function is a NumPy array, which would become a "
                "constant: pass tx.tensor(array)"
            )
        elif isinstance(arg, Iterator):
            raise TraceError(
                f"argument {i} of a compiled function is an iterator ({type(arg).__name__}), which "
                "the trace would use up: pass a list"
            )
        else:
            try:
                parts.append(key_of(arg))
            except TypeError:
                raise TraceError(
                    f"argument {i} of a compiled function is a {type(arg).__name__}: arguments are "
                    "Tensors, hashable Python values, and lists, tuples and dicts of them"
                ) from None
    modes = (records, get_default_device(), PRECISION.get(), current())
    return tuple(nesting), tuple(parts), *modes


def _flatten(value: Any, flat: list[Any], nesting: list[Any]) -> None:
    """The leaves of nested containers, in tree.leaves' order, and a key of their nesting."""
    if isinstance(value, Tensor):
        flat.append(value)
        nesting.append(None)
    elif isinstance(value, dict):
        plain = all(type(name) is str for name in value)
        nesting.append((type(value), *(value if plain else map(key_of, value))))
        for part in value.values():
            _flatten(part, flat, nesting)
    elif isinstance(value, (list, tuple)):
        nesting.append((type(value), len(value)))
        for part in value:
            _flatten(part, flat, nesting)
    else:
        flat.append(value)
        nesting.append(None)


def _difference(old: Any, new: Any) -> str:
    """The difference between the keys of two calls, in words."""
    if old[0] != new[0]:
        return "the arguments have another structure"
    for i, (a, b) in enumerate(zip(old[1], new[1], strict=True)):
        if a == b:
            continue
        tensors = [issubclass(part[0], Tensor) for part in (a, b)]
        if all(tensors):
            was, now = (Signature(p[2].shape, p[2].dtype.name, *p[3:]) for p in (a, b))
            return f"argument {i} was " + (
                difference(was, now) or "another kind of Tensor, or the same as another argument"
            )
        shown = [
            "a Tensor" if x else repr(part[1] if len(part) == 2 else part[1:])
            for x, part in zip(tensors, (a, b), strict=True)
        ]
        return "argument {} was {}, is {}".format(i, *shown)
    if old[4] != new[4]:
        return f"autocast was {old[4]}, is {new[4]}"
    if old[5] != new[5]:
        return "the rewrite rules changed"
    return "no_grad or the default device changed"
