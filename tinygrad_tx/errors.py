"""The errors that users see. Raised everywhere; the command line turns a UserError into one line.

`UserError` is for input or an environment at fault: a missing file, an unknown preset, a truncated
model. Mistakes in a program (shapes, dtypes, devices) raise the `TensorError` family below, each of
which is also the built-in exception that Python programmers expect.
"""

from __future__ import annotations

import reprlib


class UserError(ValueError):
    """Input or environment is at fault; the message is one line that says what is wrong and what
    to do."""


class DamagedError(UserError):
    """A file does not hold what was saved in it: it is torn, or bits of it have changed."""


class ShapeError(ValueError):
    """Shapes do not fit; the message names the op, the shapes and the likely fix."""


class DTypeError(TypeError):
    """A dtype is unknown or does not fit the op."""


class RangeError(DTypeError, ValueError, OverflowError):
    """A number does not fit an integer dtype. (Python says OverflowError where it is too large, and
    ValueError where it is NaN.)"""


class OpError(TypeError, ValueError):
    """The record of an op does not hold together, or the op is called in a way that it is not
    written for; the message names the op and which of its functions."""


class DeviceError(RuntimeError):
    """Devices are mixed in one op, or a device is not available."""


class DeferredIndexError(IndexError):
    """An index was outside its range in an op that a device ran since the host last waited for it;
    the message names the op. What was computed since then is not to be used."""


class GradError(RuntimeError):
    """A gradient was asked for that does not exist, or of a graph that has been released."""


class TraceError(RuntimeError):
    """A compiled function did something that needs a value while it is being traced, or a traced
    Tensor was used after its trace."""


class CheckError(RuntimeError):
    """TX_CHECK has found something: code of kernels and the interpreter that disagree, or the op
    that made a NaN or an infinity, which the message names."""


class NativeUnavailable(UserError, RuntimeError):  # noqa: N818 - a state of the machine
    """There is no native compiler here: llvmlite is missing, or cannot make this kind of code."""


class NoKernel(UserError, NotImplementedError):  # noqa: N818 - it is said, and gone on without
    """A machine has no kernel for a call; the message says why."""


class _Brief(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of thousands of digits.
        return repr(x) if x.bit_length() <= 128 else f"a number of {x.bit_length()} bits"


def brief(value: object) -> str:
    """A value from outside, whatever it is, in a few words."""
    writer = _Brief()
    writer.maxstring = writer.maxother = 200
    return writer.repr(value)
