"""Models for bulk work: read where the work is done, and known by their content.

In: the path of a run or a pretrained model. Out: what a work needs of it. Called by the works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..autocast import autocast
from ..creation import set_default_device
from ..data.files import digest
from ..errors import UserError
from ..models.loading import CONFIG, WEIGHTS, directory_of, is_pretrained
from ..models.pretrained_tokenizer import FILES

_SUFFIXES = (".json", ".safetensors", ".model", ".spm", ".txt")


@dataclass(frozen=True)
class ModelAt:
    """A model to be read by each process that works with it.

    digest: what `of` says of it when the command begins; a process that finds another one says so.
    Empty: the process that reads it is the command's.
    """

    path: str
    device: str = "cpu"
    precision: str = "fp32"
    digest: str = ""

    def load(self) -> tuple[Any, Any]:
        """The model and its tokenizer, on the device. UserError as models.load, and for another
        one."""
        from .. import models

        self.check()
        set_default_device(self.device)
        return models.load(self.path)

    def check(self) -> None:
        """UserError for another model than that of the command."""
        if self.digest and of(self.path) != self.digest:
            raise UserError(
                f"{self.path} is not the model that the command began with: it was written anew, "
                "or is another one on this machine"
            )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, Tensors are on the device, and products in the precision."""
        set_default_device(self.device)
        with autocast(self.precision):
            yield


def of(path: str) -> str:
    """A number, in hexadecimal, that differs where models or their tokenizers do. UserError for
    what is none."""
    found = hashlib.sha256()
    for file in _files(Path(path)):
        found.update(f"{file.name} {digest(file)}\n".encode())
    return found.hexdigest()


def _files(path: Path) -> list[Path]:
    if is_pretrained(path):
        return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    root = directory_of(path)
    weights = path if path.is_file() else root / WEIGHTS
    if not weights.exists():
        raise UserError(f"{root} has no {WEIGHTS} yet: it is written after the first validation")
    return [root / CONFIG, *(root / name for name in FILES if (root / name).exists()), weights]
