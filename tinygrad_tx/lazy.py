"""Names that a module offers and loads when first used, so that importing it is quick.

In: the files beside a module, with the names that are taken from each. Out: the module's
__getattr__ and __dir__ (PEP 562), which says what is near to a name that is not there. Called by
nn/, optim/, models/ and training/, and without files by others; type checkers read
the same names from imports under `if TYPE_CHECKING:`, and do not see the call, which would let them
take any name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from .mistakes import missing


def lazily(
    module: str, files: Mapping[str, str] = MappingProxyType({})
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """module: its __name__. files: names, with spaces between, by the file they are in, which lies
    in the package, or of a module beside it; a package's files are attributes, too."""
    home = sys.modules[module]
    package = home.__package__ or ""
    where = {name: file for file, names in files.items() for name in names.split()}
    beside = set(files) if package == module else set()

    def load(name: str) -> Any:
        if name in where:
            value = getattr(import_module(f".{where[name]}", package), name)
        elif name in beside:
            value = import_module(f".{name}", package)
        else:
            raise missing(home, f"module {module!r}", name, names())
        setattr(home, name, value)  # found by itself from now on
        return value

    def names() -> list[str]:
        return sorted({*vars(home), *where, *beside})

    return load, names
