"""Recurrent layers and their cells: PyTorch's RNN, LSTM and GRU, with its parameter names.

In: sequences (T, B, features) and a state. Out: the states h of the last layer at all steps, and
the state after the last one. Called by models/seq2seq.py and by users.

What a step needs of its input is one product for all steps, before the loop; the loop (tx.scan)
does a product of the state and an expression of gates, for both directions side by side.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import ops
from ..context import PRECISION, current_trace
from ..creation import arange, cat, stack, tensor, where, zeros
from ..drawing import dropped
from ..dtypes import AUTOCAST
from ..errors import DTypeError, ShapeError, UserError
from ..loops.scan import scan
from ..spelling import refuse
from ..tensor import Tensor
from . import functional as F  # noqa: N812
from . import init
from .module import Module, Parameter

State = tuple[Tensor, ...]  # (h,), an LSTM's (h, c)

# Cells -----------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """A cell's: the gates lie one below the other, G H rows."""

    ih: Tensor  # (G H, I)
    hh: Tensor  # (G H, H)
    b_ih: Tensor | None  # (G H,)
    b_hh: Tensor | None


class Cell(NamedTuple):
    """A kind of cell. step: (what the input gives (B, G H), state, weights) -> state.

    within: True if the last gate takes its recurrent bias along with the recurrent product.
    """

    gates: int
    step: Callable[[Tensor, State, Weights], State]
    states: int = 1
    within: bool = False

    def given(self, x: Tensor, w: Weights) -> Tensor:
        """What the inputs (..., I) give to the gates, and the biases (..., G H)."""
        if w.b_ih is None or w.b_hh is None:
            return F.linear(x, w.ih)
        b_hh = w.b_hh
        if self.within:
            inner = len(b_hh) // self.gates
            rest = zeros(inner, dtype=b_hh.dtype, device=b_hh.device)
            b_hh = cat([b_hh[:-inner], rest])
        return F.linear(x, w.ih, w.b_ih + b_hh)


def _elman(activation: Callable[[Tensor], Tensor]) -> Cell:
    """h' = activation(W_ih x + W_hh h) (Elman 1990)."""

    def step(given: Tensor, state: State, w: Weights) -> State:
        (h,) = state
        return (activation(given + h @ w.hh.T),)

    return Cell(1, step)


def _lstm(given: Tensor, state: State, w: Weights) -> State:
    h, c = state
    i, f, g, o = (given + h @ w.hh.T).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(given: Tensor, state: State, w: Weights) -> State:
    (h,) = state
    r, z, n = given.chunk(3, -1)
    own_r, own_z, own_n = (h @ w.hh.T).chunk(3, -1)
    if w.b_hh is not None:
        own_n = own_n + w.b_hh[-h.shape[-1] :]
    z = (z + own_z).sigmoid()
    n = (n + (r + own_r).sigmoid() * own_n).tanh()
    return ((1 - z) * n + z * h,)


_RNN = {"tanh": _elman(F.tanh), "relu": _elman(F.relu)}
_LSTM = Cell(4, _lstm, states=2)  # input, forget, cell, output gate
_GRU = Cell(3, _gru, within=True)  # reset, update, new gate


def _elman_of(name: str, nonlinearity: str) -> Cell:
    if nonlinearity not in _RNN:
        raise UserError(f'{name}: nonlinearity={nonlinearity!r} must be "tanh" or "relu"')
    return _RNN[nonlinearity]


# Their modules ---------------------------------------------------------------------------------


class _Weighted(Module, ABC):
    """What layers and cells have in common: a Cell, sizes, and matrices and biases by name."""

    input_size: int
    hidden_size: int
    bias: bool

    @abstractmethod
    def _cell(self) -> Cell:
        """The computation of a step."""

    def _sized(self, input_size: int, hidden_size: int, bias: bool) -> None:
        name = type(self).__name__
        for what, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < (what == "hidden_size"):
                raise ShapeError(f"{name}: {what} = {size} must be positive")
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias

    def _add(self, suffix: str, width: int, device: str | None, dtype: Any) -> None:
        """Weights for an input of that width, uniform in +-1/sqrt(hidden_size)."""
        rows, bound = self._cell().gates * self.hidden_size, 1 / math.sqrt(self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        for name, shape in shapes.items():
            weight = Parameter(zeros(shape, dtype=dtype, device=device))
            init.uniform_(weight, -bound, bound)
            setattr(self, name + suffix, weight)

    def _weights(self, suffix: str) -> Weights:
        ih, hh = (getattr(self, name + suffix) for name in ("weight_ih", "weight_hh"))
        if not self.bias:
            return Weights(ih, hh, None, None)
        return Weights(ih, hh, *(getattr(self, name + suffix) for name in ("bias_ih", "bias_hh")))

    def _check_input(self, x: Any, ndim: tuple[int, ...], wanted: str) -> None:
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise UserError(
                f"{name}: the input must be a Tensor, not a {type(x).__name__}; sequences of "
                "several lengths go in padded, with lengths="
            )
        if x.ndim not in ndim or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: an input {x.shape} must be {wanted}, with input_size = {self.input_size}"
            )

    def _first(self, hx: Any, shape: tuple[int, ...], x: Tensor, meaning: str) -> State:
        """The state to begin with: hx, which must be of that shape, or zeros."""
        name, count = type(self).__name__, self._cell().states
        dtype, device = next(self.parameters()).dtype, x.device
        if hx is None:
            return tuple(zeros(shape, dtype=dtype, device=device) for _ in range(count))
        given = (hx,) if count == 1 else hx
        fits = isinstance(given, (tuple, list)) and len(given) == count
        if not fits or not all(isinstance(part, Tensor) for part in given):
            wanted = "a Tensor h" if count == 1 else "a tuple (h, c) of two Tensors"
            raise UserError(f"{name}: hx must be {wanted}")
        for part, letter in zip(given, "hc", strict=False):
            if part.shape != shape:
                raise ShapeError(f"{name}: {letter} of hx is {part.shape}, not {meaning} = {shape}")
            if part.dtype != dtype and PRECISION.get() not in AUTOCAST:
                raise DTypeError(
                    f"{name}: {letter} of hx is {part.dtype.name}, the weights are {dtype.name}"
                )
        return tuple(part.to(dtype) for part in given)

    def _shown(self, state: State) -> Any:
        """A state as users see it: h, or (h, c)."""
        return state if self._cell().states > 1 else state[0]


class _Layers(_Weighted):
    """The base of RNN, LSTM and GRU: layers, and directions."""

    def _made(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: str | None,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        self._sized(input_size, hidden_size, bias)
        if num_layers < 1:
            raise ShapeError(f"{name}: num_layers = {num_layers} must be positive")
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise UserError(f"{name}: dropout = {dropout} must be between 0 and 1")
        if dropout and num_layers == 1:
            warnings.warn(
                f"{name}: dropout = {dropout} acts between layers, and there is one", stacklevel=4
            )
        self.num_layers, self.batch_first = num_layers, batch_first
        self.dropout, self.bidirectional = dropout, bidirectional
        self._directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            width = hidden_size * len(self._directions) if layer else input_size
            for direction in self._directions:
                self._add(f"_l{layer}{direction}", width, device, dtype)

    def forward(self, x: Tensor, hx: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """x (T, B, I), with batch_first (B, T, I), or one sequence (T, I) -> (output, state).

        hx: the state to begin with, zeros by default: h, for an LSTM (h, c), each (layers x
        directions, B, H). lengths: ints (B,), how much of each sequence counts; what is behind
        it changes nothing, its outputs are 0, a state is that at a sequence's own end, and the
        other direction begins there. output (T, B, directions x H), batch first like x; state: as
        hx. In a compiled function lengths are taken as they are, elsewhere they are checked.
        """
        wanted = "(batch, length, features)" if self.batch_first else "(length, batch, features)"
        self._check_input(x, (2, 3), f"{wanted}, or (length, features)")
        batched, turned = x.ndim == 3, x.ndim == 3 and self.batch_first
        x = (x.transpose(0, 1) if turned else x) if batched else x.unsqueeze(1)
        T, B, _ = x.shape  # noqa: N806
        D, rows = len(self._directions), self.num_layers * len(self._directions)  # noqa: N806
        meaning = "(layers x directions, batch, hidden_size)"
        if batched:
            first = self._first(hx, (rows, B, self.hidden_size), x, meaning)
        else:
            meaning = meaning.replace(" batch,", "")
            one = self._first(hx, (rows, self.hidden_size), x, meaning)
            first = tuple(part.unsqueeze(1) for part in one)
        valid = None
        if lengths is not None:
            ends = self._checked_lengths(lengths, T, B if batched else None, x.device)
            valid = (arange(T, device=x.device).unsqueeze(1) < ends).unsqueeze(2)  # (T, B, 1)
            x = where(valid, x, 0.0)  # whatever is there reaches no gradient
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer:
                x = dropped(x, self.dropout, axis=1) if self.training and self.dropout else x
            places = range(layer * D, (layer + 1) * D)
            x, ended = self._layer(x, layer, [tuple(p[i] for p in first) for i in places], valid)
            last += ended
        state = tuple(stack(parts) for parts in zip(*last, strict=True))
        if not batched:
            return x.squeeze(1), self._shown(tuple(part.squeeze(1) for part in state))
        return (x.transpose(0, 1) if turned else x), self._shown(state)

    def _layer(
        self, x: Tensor, layer: int, first: list[State], valid: Tensor | None
    ) -> tuple[Tensor, Sequence[State]]:
        """x (T, B, I) and a state of each direction -> outputs (T, B, D H), and the last states."""
        cell, weights = self._cell(), [self._weights(f"_l{layer}{d}") for d in self._directions]
        # The second direction gets everything the other way round. Where its steps are padding,
        # its state waits, and so it begins at each row's own end.
        given = [_turned(cell.given(x, w), i) for i, w in enumerate(weights)]
        counts = [None if valid is None else _turned(valid, i) for i in range(len(weights))]

        xs = list(zip(given, counts, strict=True))

        def step(states: list[State], xs: Any) -> tuple[list[State], list[Tensor]]:
            new: list[State] = []
            for w, old, (gates, counts) in zip(weights, states, xs, strict=True):
                made = cell.step(gates, old, w)
                made = tuple(a.to(b.dtype) for a, b in zip(made, old, strict=True))  # as autocast
                if counts is not None:
                    made = tuple(where(counts, a, b) for a, b in zip(made, old, strict=True))
                new.append(made)
            return new, [state[0] for state in new]

        if len(x) == 1:  # a decoder's step: no loop
            last, ys = step(first, [(g[0], None if c is None else c[0]) for g, c in xs])
            ys = [y.unsqueeze(0) for y in ys]
        else:
            last, ys = scan(step, first, xs, length=len(x))
        ys = [_turned(y, i) for i, y in enumerate(ys)]
        y = cat(ys, -1) if len(ys) > 1 else ys[0]
        return (y if valid is None else where(valid, y, 0.0)), last

    def _checked_lengths(self, lengths: Any, T: int, B: int | None, device: str) -> Tensor:  # noqa: N803
        name = type(self).__name__
        if not isinstance(lengths, Tensor):
            lengths = tensor(lengths, device=device)
        if B is None:
            raise UserError(f"{name}: lengths go with a batch; cut this one sequence instead")
        if lengths.dtype.is_floating_point or lengths.dtype.name == "bool":
            raise DTypeError(f"{name}: lengths must be ints, not {lengths.dtype.name}")
        if lengths.shape != (B,):
            raise ShapeError(f"{name}: lengths {lengths.shape} must be one for each row, {(B,)}")
        checked: Tensor = lengths.to(device)
        if current_trace() is not None:
            return checked
        try:  # a GPU is not waited for: there an IndexError comes later
            checked = ops.WRAP_INDEX(checked, size=T + 1, wrap=False, of=f"{name}: lengths")
        except IndexError:
            least, most = lengths.min().item(), lengths.max().item()
            wrong = least if least < 0 else most
            raise UserError(
                f"{name}: a length is {wrong}; the sequences have 0 to {T} steps"
            ) from None
        return checked

    def flatten_parameters(self) -> None:
        """Nothing: it says how PyTorch runs something."""

    def describe(self) -> str:
        settings = {
            "num_layers": (self.num_layers, 1),
            "bias": (self.bias, True),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
            "bidirectional": (self.bidirectional, False),
        }
        said = [f"{k}={v}" for k, (v, default) in settings.items() if v != default]
        return ", ".join((f"{self.input_size}, {self.hidden_size}", *said))


def _turned(x: Tensor, direction: int) -> Tensor:
    """x (T, ...) in the order of a direction, and back again."""
    return x.flip(0) if direction else x


class RNN(_Layers):
    """Layers of h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu; see forward().

    Weights start uniform in +-1/sqrt(hidden_size). bidirectional: a second direction, from the
    last element to the first, its outputs behind the others'. dropout: on the outputs of each
    layer but the last, in training.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = nonlinearity
        self._made(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype,
        )  # fmt: skip

    def _cell(self) -> Cell:
        return _elman_of(type(self).__name__, self.nonlinearity)

    def describe(self) -> str:
        relu = ", nonlinearity=relu" if self.nonlinearity == "relu" else ""
        return super().describe() + relu


class LSTM(_Layers):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997); see RNN and forward().

    i, f, g, o = W_ih x + b_ih + W_hh h + b_hh, in this order in the weights;
    c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        refuse("LSTM", "map the outputs by a Linear", proj_size=proj_size or None)
        self._made(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype,
        )  # fmt: skip

    def _cell(self) -> Cell:
        return _LSTM


class GRU(_Layers):
    """Layers of gated recurrent units (Cho et al. 2014, arXiv 1406.1078); see RNN and forward().

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh), n = tanh(W_ih x + b_ih + r (W_hh h + b_hh)), in
    this order in the weights; h' = (1 - z) n + z h.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self._made(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype,
        )  # fmt: skip

    def _cell(self) -> Cell:
        return _GRU


class _OneStep(_Weighted):
    """The base of RNNCell, LSTMCell and GRUCell."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """input (B, I) or (I,), and the state hx, (B, H) or (H,) each, zeros by default -> the
        next state."""
        self._check_input(input, (1, 2), "(batch, features) or (features)")
        shape = (*input.shape[:-1], self.hidden_size)
        meaning = "(batch, hidden_size)" if input.ndim > 1 else "(hidden_size,)"
        first = self._first(hx, shape, input, meaning)
        cell, weights = self._cell(), self._weights("")
        return self._shown(cell.step(cell.given(input, weights), first, weights))

    def describe(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"


class RNNCell(_OneStep):
    """One step of an RNN's layer, with weight_ih, weight_hh, bias_ih and bias_hh."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = nonlinearity
        self._sized(input_size, hidden_size, bias)
        self._add("", input_size, device, dtype)

    def _cell(self) -> Cell:
        return _elman_of(type(self).__name__, self.nonlinearity)

    def describe(self) -> str:
        relu = ", nonlinearity=relu" if self.nonlinearity == "relu" else ""
        return super().describe() + relu


class LSTMCell(_OneStep):
    """One step of an LSTM's layer: (h, c) -> (h, c)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self._sized(input_size, hidden_size, bias)
        self._add("", input_size, device, dtype)

    def _cell(self) -> Cell:
        return _LSTM


class GRUCell(_OneStep):
    """One step of a GRU's layer."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self._sized(input_size, hidden_size, bias)
        self._add("", input_size, device, dtype)

    def _cell(self) -> Cell:
        return _GRU
