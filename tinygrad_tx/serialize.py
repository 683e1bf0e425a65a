"""tx.save and tx.load: named Tensors in a safetensors file, and never pickle.

In: a dict of Tensors and a path. Out: a file that is written whole or not at all. Called for
checkpoints and models.

The file's metadata hold, under "tinygrad_tx", the number of the format and a checksum of all the
rest: names, dtypes, shapes, elements, metadata. Files without it (of the first format, of other
programs) are read unchecked.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import atomic
from .arguments import shown
from .creation import tensor
from .dtypes import as_dtype, bfloat16
from .errors import DamagedError, DTypeError, UserError, brief
from .state import State
from .tensor import Tensor

Array = np.ndarray[Any, Any]

# Of everything that is saved: Tensors, checkpoints, run directories. Raise it where older code
# would misread what newer code writes. 1 (files without a number) had no checksums.
FORMAT = 2
_KEY = "tinygrad_tx"
_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "bool": "BOOL",
}  # fmt: skip


def save(state: State, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Write named Tensors (or arrays), and perhaps some text by name, to a safetensors file.

    UserError where it cannot be written: then a file that was there before is unchanged.
    """
    for what, names in (("state", state), ("metadata", {} if metadata is None else metadata)):
        if not isinstance(names, Mapping):
            raise TypeError(f"save: {what} must be a dict, not a {type(names).__name__}")
    _require_path("save", path)
    text = dict(metadata or {})
    for given in (*state, *text, *text.values()):
        if not _is_text(given):
            raise UserError(
                f"cannot write {path}: names and metadata must be text, not {shown(given)}"
            )
    for name, among in ((_KEY, text), ("__metadata__", state)):
        if name in among:
            raise UserError(f"cannot write {path}: the name {name!r} is taken by the format")
    arrays = {name: _as_array(value, name, path) for name, value in state.items()}
    text[_KEY] = json.dumps({"format": FORMAT, "crc32": _checksum(arrays, text)})
    atomic.write_with(path, lambda temporary: _write(temporary, arrays, text))


def load(
    path: Path | str, device: str | None = None, *, wanted: Callable[[str], bool] | None = None
) -> dict[str, Tensor]:
    """The Tensors of a safetensors file, by name; those alone whose names are wanted.

    UserError where it is missing, truncated, or of another format; where it was saved by `save` and
    has changed since; where a newer version of this package saved it.
    """
    return load_with_metadata(path, device, wanted)[0]


def load_with_metadata(
    path: Path | str, device: str | None = None, wanted: Callable[[str], bool] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As load(), and the text that was saved along."""
    _require_path("load", path)
    arrays, text = _read(Path(path), wanted)
    for name, array in arrays.items():
        _known(array.dtype, name, path)
    return {name: tensor(array, device=device) for name, array in arrays.items()}, text


def _require_path(name: str, path: object) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: path must be a str or a Path, not a {type(path).__name__}")


def require_format(found: object, path: Path | str) -> None:
    """UserError unless this version reads what is of the format of that number, found in `path`."""
    if type(found) is not int or found < 1:
        raise DamagedError(f"{path}: {brief(found)} is no number of a format")
    if found > FORMAT:
        raise UserError(
            f"{path} is of format {brief(found)}; this version of tinygrad_tx reads {FORMAT} and "
            "older: install a newer one"
        )


# Writing -----------------------------------------------------------------------------------------


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half of a character
        return False


def _as_array(value: Any, name: str, path: Path | str) -> Array:
    """The elements in one piece, little-endian."""
    array = np.asarray(value, order="C")
    _known(array.dtype.newbyteorder("="), name, path)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _write(path: Path, arrays: Mapping[str, Array], text: Mapping[str, str]) -> None:
    """A safetensors file: the length of the header in eight bytes, a header in JSON, all elements.

    The library's own function makes a temporary file that a killed process leaves behind, or takes
    memory for everything once more.
    """
    # Elements lie aligned: the widest come first.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": text}
    end = 0
    for name in names:
        array = arrays[name]
        start, end = end, end + array.nbytes
        code = _CODES[as_dtype(array.dtype.newbyteorder("=")).name]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            file.write(_bytes(arrays[name]))


def _checksum(arrays: Mapping[str, Array], text: Mapping[str, str]) -> str:
    """The CRC-32 of everything but our own entry in the metadata, in an order of its own."""
    about = [[name, str(arrays[name].dtype.name), arrays[name].shape] for name in sorted(arrays)]
    rest = sorted((key, value) for key, value in text.items() if key != _KEY)
    found = zlib.crc32(json.dumps([about, rest]).encode())
    for name in sorted(arrays):
        found = zlib.crc32(_bytes(arrays[name]), found)
    return f"{found:08x}"


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


# Reading -----------------------------------------------------------------------------------------


def _read(
    path: Path, wanted: Callable[[str], bool] | None = None
) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a file, checked against its checksum if it has one and all of
    it is wanted."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            if not os.path.lexists(path):
                raise UserError(f"cannot load {path}: there is no such file")
            problem = "a directory" if path.is_dir() else "no file, or a link to none"
            raise DamagedError(f"cannot load {path}: it is {problem}")
        with path.open("rb"):  # what may not be read is not damaged
            pass
    except OSError as error:
        raise UserError(f"cannot load {path}: {error.strerror}") from error
    try:
        with safe_open(path, framework="numpy") as file:
            text = dict(file.metadata() or {})
            own = text.pop(_KEY, None)
            if own is not None:
                require_format(_own(own, path).get("format"), path)
            names = [name for name in file.keys() if wanted is None or wanted(name)]  # noqa: SIM118
            if any(file.get_slice(name).get_dtype() == "BF16" for name in names):
                _ = bfloat16.np  # NumPy has to be told that there is such a thing
            arrays = {name: file.get_tensor(name) for name in names}
    except AttributeError as error:  # how the library asks NumPy for a type of 8 bits
        raise UserError(f"cannot load {path}: it holds a dtype unknown to NumPy: {error}") from None
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        if isinstance(error, UserError | DTypeError):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedError(
            f"cannot load {path}: it is no safetensors file, or a damaged one ({reason})"
        ) from None
    if (
        own is not None
        and wanted is None
        and _own(own, path).get("crc32") != _checksum(arrays, text)
    ):
        raise DamagedError(
            f"cannot load {path}: it is damaged: its checksum is not that of what was saved"
        )
    # Of other programs' files: any byte but 0 is true, and NumPy reckons with 1.
    return {n: a.view(np.uint8) != 0 if a.dtype == bool else a for n, a in arrays.items()}, text


def _own(entry: str, path: Path) -> dict[str, Any]:
    """Our entry in the metadata."""
    try:
        found = json.loads(entry)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DamagedError(f"cannot load {path}: it is damaged: its checksum cannot be read")
    return found


def _known(dtype: Any, name: str, path: Path | str) -> None:
    try:
        as_dtype(dtype)
    except DTypeError as error:
        raise UserError(f"{path}: entry {name}: {error}") from None
