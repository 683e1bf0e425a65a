"""tx.save and tx.load: named Tensors in a safetensors file, and never pickle.

In: a dict of Tensors and a path. Out: a file that is written whole or not at all. Called for
checkpoints and models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import atomic
from .creation import tensor
from .dtypes import as_dtype
from .errors import DTypeError, UserError
from .tensor import Tensor

if TYPE_CHECKING:
    from .nn.module import State


def save(state: State, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Write named Tensors (or arrays), and perhaps some text by name, to a safetensors file.

    UserError where it cannot be written: then a file that was there before is unchanged.
    """
    from safetensors.numpy import save_file

    # The file is written from memory by address: each array must lie there in one piece.
    arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
    for name, array in arrays.items():
        _known(array.dtype, name, path)
    text = None if metadata is None else dict(metadata)
    atomic.write_with(path, lambda temporary: save_file(arrays, temporary, text))


def load(path: Path | str, device: str | None = None) -> dict[str, Tensor]:
    """The Tensors of a safetensors file, by name.

    UserError where it is missing, truncated, or of another format.
    """
    return load_with_metadata(path, device)[0]


def load_with_metadata(
    path: Path | str, device: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As load(), and the text that was saved along."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        problem = "it is a directory" if Path(path).is_dir() else "there is no such file"
        raise UserError(f"cannot load {path}: {problem}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot load {path}: it is no safetensors file, or a damaged one ({reason})"
        ) from None
    for name, array in arrays.items():
        _known(array.dtype, name, path)
    return {name: tensor(array, device=device) for name, array in arrays.items()}, text


def _known(dtype: Any, name: str, path: Path | str) -> None:
    try:
        as_dtype(dtype)
    except DTypeError as error:
        raise UserError(f"{path}: entry {name}: {error}") from None
