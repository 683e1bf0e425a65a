"""Whatever is public is used on device "cuda" by a test beside this one, or a table of cases that
they go through: a later addition cannot be forgotten."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import tinygrad_tx as tx
from tinygrad_tx import decoding, models, nn, optim
from tinygrad_tx.nn import functional as F  # noqa: N812

HERE = Path(__file__).parent
TABLES = (
    *("convolution_case", "device_calls", "device_layers", "device_models", "recurrent_case"),
    *("scan_cases", "torch_ops", "torch_values"),
)
APART = {  # what no test here has to use, each with the reason
    **dict.fromkeys(("get_num_threads", "set_num_threads"), "of the CPU's kernels"),
    **dict.fromkeys(("Hypothesis", "Translation"), "what decoding gives: no Tensors"),
    **dict.fromkeys(("Optimizer", "Schedule", "LRScheduler", "Falling"), "bases of others"),
    **dict.fromkeys(("LanguageModel", "EncoderDecoder"), "bases of others"),
    **dict.fromkeys(("is_grad_enabled", "scoped"), "nothing of a Tensor"),
    **dict.fromkeys(("padding_row", "sizes", "require", "require_numbers"), "checks of arguments"),
}


def of(module: ModuleType, package: str = "tinygrad_tx") -> set[str]:
    """The functions and classes of this package that a module offers, by its public names."""
    return {
        name
        for name in dir(module)
        if callable(value := getattr(module, name))
        and not name.startswith("_")
        and (getattr(value, "__module__", None) or "").startswith(package)
    }


PUBLIC = {
    "tx": {name for name in tx.__all__ if inspect.isfunction(getattr(tx, name))},
    "Tensor": {name for name in dir(tx.Tensor) if not name.startswith("_")},
    "nn": {name for name in nn.__all__ if callable(getattr(nn, name))},
    "nn.init": of(nn.init, "tinygrad_tx.nn"),
    "F": of(F, "tinygrad_tx.nn"),
    "optim": {name for name in optim.__all__ if callable(getattr(optim, name))},
    "lr_scheduler": of(optim.lr_scheduler, "tinygrad_tx.optim"),
    "models": {name for name in models.__all__ if inspect.isclass(getattr(models, name))},
    "decoding": set(decoding.__all__),
}


@pytest.fixture(scope="module")
def used() -> set[str]:
    """What the tests and tables name, as .name or name(...)."""
    files = [*HERE.glob("test_*.py"), *(HERE.parent / "helpers" / f"{t}.py" for t in TABLES)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return {name for pair in re.findall(r"\.(\w+)|\b(\w+)\(", text) for name in pair}


@pytest.mark.parametrize("place", PUBLIC)
def test_nothing_is_forgotten(place: str, used: set[str]) -> None:
    assert len(PUBLIC[place]) > 6
    lacking = PUBLIC[place] - used - APART.keys()
    assert not lacking, f"{place}: no test on a GPU uses {sorted(lacking)}"
