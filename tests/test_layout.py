"""The house rules that a machine can check: who may import whom, where the heavy libraries are,
how long a file may be, and what `import tinygrad_tx` loads."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tinygrad_tx import settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinygrad_tx"
FLOORS = {
    **dict.fromkeys(
        (
            *("arguments", "atomic", "dtypes", "errors", "lazy", "locks", "mistakes", "pages"),
            *("places", "settings", "tree", "version"),
        ),
        0,
    ),
    "backends": 1,
    **dict.fromkeys(("context", "distributed", "finite", "half", "node", "op", "ops", "rules"), 2),
    # 3: every other file beside __init__.py
    "loops": 3,
    "compiler": 4,
    **dict.fromkeys(("nn", "optim"), 5),
    "models": 6,
    **dict.fromkeys(("bulk", "data", "training", "decoding", "viz"), 7),
    **dict.fromkeys(("cli", "__main__"), 8),
    "__init__": 9,  # where the floors are put together
}
PUBLIC = 4  # what `import tinygrad_tx as tx` means: Tensors and tx.compile


def floor(parts: list[str]) -> int:
    """The floor of a dotted name in the package, given as its parts."""
    name = parts[1] if len(parts) > 1 else ""
    if name in FLOORS:
        return FLOORS[name]
    return 3 if (PACKAGE / f"{name}.py").exists() else PUBLIC


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


ROOMS = (["tinygrad_tx"], ["tinygrad_tx", "backends"])  # packages whose packages are rooms


class Imports(ast.NodeVisitor):
    """Collects (line, parts of the dotted name) of all that a file imports, in functions too."""

    def __init__(self, path: Path) -> None:
        self.parts = [*path.relative_to(ROOT).parts[:-1], path.stem]
        self.found: list[tuple[int, list[str]]] = []
        self.aliases = {"tinygrad_tx"}
        self.visit(parsed(path))

    def visit_If(self, node: ast.If) -> None:
        # Exempt: an annotation may name a type of a higher floor whose values only pass through
        # (a vjp is handed Tensors), and nothing is loaded for it.
        typing_only = ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.orelse if typing_only else ast.iter_child_nodes(node):
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, name.name.split(".")) for name in node.names]
        self.aliases |= {n.asname for n in node.names if n.name == "tinygrad_tx" and n.asname}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.parts[: -node.level] if node.level else []
        base = base + node.module.split(".") if node.module else base
        # `from tinygrad_tx import nn` imports nn; deeper down the module alone decides, but for the
        # rooms of backends/.
        self.found += [
            (node.lineno, [*base, name.name] if base in ROOMS else base) for name in node.names
        ]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        # After `import tinygrad_tx as tx`, tx.nn is as good as an import of nn.
        if isinstance(node.value, ast.Name) and node.value.id in self.aliases:
            self.found.append((node.lineno, ["tinygrad_tx", node.attr]))
        self.generic_visit(node)


def files(*directories: str) -> Iterator[Path]:
    for directory in directories:
        yield from sorted((ROOT / directory).rglob("*.py"))


def shown(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_floors() -> None:
    wrong = [
        f"{shown(path, line)} imports {'.'.join(name)}"
        for path in files("tinygrad_tx")
        for imports in [Imports(path)]
        for line, name in imports.found
        if name[0] == "tinygrad_tx" and floor(name) > floor(imports.parts)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_page_on_the_architecture_names_every_file_and_its_floor() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    said = {
        name: int(row[1])
        for row in re.finditer(r"^\| (\d) \| (`[^|]+) \|", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)(?:\.py|/)`", row[2])
    }
    rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix in ("", ".py")}
    assert said == {name: floor(["tinygrad_tx", name]) for name in rooms if name[0] != "_"}


def test_the_floors_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector itself: every spelling of an import counts, TYPE_CHECKING does not."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "tinygrad_tx" / "ops" / "map.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import numpy as np, tinygrad_tx as tx\n"
        "from .. import nn\n"
        "from ..node import Op\n"
        "from . import reduce\n"
        "from ..backends import cpu\n"
        "from tinygrad_tx import Tensor\n"
        "if TYPE_CHECKING:\n"
        "    import tinygrad_tx.cli\n"
        "else:\n"
        "    import tinygrad_tx.viz\n"
        "def f():\n"
        "    import tinygrad_tx.optim.adam\n"
        "    return tx.models.GPT\n"
    )
    assert [".".join(name) for _, name in Imports(path).found] == [
        "numpy",
        "tinygrad_tx",
        "tinygrad_tx.nn",
        "tinygrad_tx.node",
        "tinygrad_tx.ops",
        "tinygrad_tx.backends.cpu",
        "tinygrad_tx.Tensor",
        "tinygrad_tx.viz",
        "tinygrad_tx.optim.adam",
        "tinygrad_tx.models",
    ]


def test_cupy_and_llvmlite_have_one_home_each() -> None:
    homes: dict[str, set[str]] = {"cupy": set(), "cupyx": set(), "llvmlite": set()}
    for path in files("tinygrad_tx"):
        for _, name in Imports(path).found:
            homes.get(name[0], set()).add(str(path.relative_to(PACKAGE)))
    rooms = ("backends/arrays/cupy_", "backends/gpu/cupy_")
    strays = [h for h in homes["cupy"] | homes["cupyx"] if not h.startswith(rooms)]
    assert not strays, strays
    assert homes["cupy"] and homes["llvmlite"] == {"backends/llvm/engine.py"}


def test_the_compiler_knows_no_machine() -> None:
    wrong = [
        f"{shown(path, line)} imports {'.'.join(name)}"
        for path in files("tinygrad_tx/compiler")
        for line, name in Imports(path).found
        if name[:2] == ["tinygrad_tx", "backends"] and name[2:3] in (["llvm"], ["cpu"], ["gpu"])
    ]
    assert not wrong, wrong


def test_what_machines_share_knows_none() -> None:
    wrong = [
        f"{shown(path, line)} imports {'.'.join(name)}"
        for room in ("arrays", "kernels", "llvm")
        for path in files(f"tinygrad_tx/backends/{room}")
        for line, name in Imports(path).found
        if name[:3] in (["tinygrad_tx", "backends", "cpu"], ["tinygrad_tx", "backends", "gpu"])
    ]
    assert not wrong, wrong


def test_imports_within_the_package_are_relative() -> None:
    wrong = [
        shown(path, node.lineno)
        for path in files("tinygrad_tx")
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        if "tinygrad_tx" in ast.unparse(node)
    ]
    assert not wrong, wrong


def test_environment_variables_are_read_in_one_place() -> None:
    named = re.compile(r"""environ\S*["']TX_|getenv""")
    wrong = [
        shown(path)
        for path in files("tinygrad_tx")
        if path.name != "settings.py" and named.search(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, wrong
    docs = (ROOT / "docs" / "using-compile.md").read_text(encoding="utf-8")
    assert all(f"| `{name}" in docs for name in settings.MEANINGS)


def test_only_backends_ask_which_device_it_is() -> None:
    wrong = [
        shown(path, node.lineno)
        for path in files("tinygrad_tx")
        if not path.is_relative_to(PACKAGE / "backends")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in ("cpu", "cuda")
    ]
    assert not wrong, wrong


def test_files_are_short_and_say_what_they_are() -> None:
    long, mute = [], []
    for path in files("tinygrad_tx", "tests", "examples", "benchmarks"):
        text = path.read_text(encoding="utf-8")
        if (length := len(text.splitlines())) > 600:
            long.append(f"{shown(path)} has {length} lines")
        if not ast.get_docstring(parsed(path)):
            mute.append(shown(path))
    assert not long, long
    assert not mute, f"no docstring: {mute}"


def test_tests_lie_as_the_package_does() -> None:
    """A folder of tests is named by a room; `core` is for files beside the rooms."""
    rooms = {p.name for top in (PACKAGE, PACKAGE / "backends") for p in top.iterdir() if p.is_dir()}
    tests = ROOT / "tests"
    folders = {p.relative_to(tests).parts[0] for p in tests.glob("*/**/test_*.py")}
    assert {"core", "gpu", "cpu", "compiler"} <= folders <= rooms | {"core", "gpu"}


def test_classes_are_short() -> None:
    long = [
        f"{shown(path, node.lineno)} {node.name} has {length} lines"
        for path in files("tinygrad_tx")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and node.name != "Methods"
        if (length := (node.end_lineno or 0) - node.lineno + 1) > 250
    ]
    assert not long, long


def test_the_readme_says_how_much_there_is_to_read() -> None:
    def lines(*names: str) -> int:
        paths = [PACKAGE / name for name in names]
        every = [f for p in paths for f in (p.rglob("*.py") if p.is_dir() else [p])]
        return sum(len(f.read_text(encoding="utf-8").splitlines()) for f in every)

    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = re.search(
        r"`models/`, ([\d,]+) lines .*?`compiler/` \(([\d,]+) lines\).*?\(([\d,]+)\)", readme
    )
    assert said is not None
    counted = (
        lines("op.py", "node.py", "autograd.py", "tensor.py", "ops", "models"),
        lines("compiler"),
        lines("backends"),
    )
    for text, number in zip(said.groups(), counted, strict=True):
        assert int(text.replace(",", "")) == pytest.approx(number, rel=0.1)


@pytest.mark.skipif((ROOT / "PKG-INFO").exists(), reason="an sdist has no links")
def test_links_at_the_top_level() -> None:
    for name in ("backends", "models"):
        assert (ROOT / name).readlink() == Path("tinygrad_tx", name)
        assert (ROOT / name).is_dir()


LOADED = """
import sys
before = set(sys.modules)
import tinygrad_tx
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(names - sys.stdlib_module_names))
"""


def test_the_layers_load_what_eager_code_starts_with() -> None:
    code = "import sys; from tinygrad_tx import models, nn, optim; models.GPT; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    parts = [name.split(".") for name in done.stdout.split()]
    loaded = {(p[1], p[2]) for p in parts if p[0] == "tinygrad_tx" and len(p) == 3}
    assert {file for room, file in loaded if room == "nn"} == {
        *("activations", "calls", "containers", "functional", "init", "layers", "module")
    }
    assert {file for room, file in loaded if room == "optim"} == {"adam", "optimizer", "sgd"}
    assert {file for room, file in loaded if room == "models"} == {
        *("config", "gpt", "language_model", "objective", "saving", "stepwise"),
        "tensor_parallel",
    }
    assert not [file for room, file in loaded if room in ("loops", "compiler")]


def test_names_that_are_loaded_when_first_used() -> None:
    from tinygrad_tx import models, nn, optim

    for module in (models, nn, optim):
        assert set(module.__all__) <= set(dir(module))
        assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match=r"'tinygrad_tx\.nn' has no attribute 'Conv3d'"):
        nn.Conv3d  # noqa: B018
    assert "cross_entropy" in dir(nn.functional) and nn.functional.cross_entropy
    assert nn.recurrent.LSTM is nn.LSTM and optim.lr_scheduler.Noam


def test_import_loads_numpy_and_nothing_else_that_was_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["numpy", "tinygrad_tx"]
