"""What README, docs/ and examples/ show is run: each file's ```python blocks, one after another in
one namespace, and each example as a program. ```python no-run marks a block that only shows; an
```output block is what they print, one after another, with other prints between."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if p.exists()]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXTRAS = {"autoencoder": ("sklearn", "matplotlib")}  # what an example cannot do without


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def program(page: str) -> str:
    """The lines of a page's ```python blocks, the others left blank: line numbers stay true."""
    lines, language = [], ""
    for number, line in enumerate(page.splitlines(), 1):
        fence, kept = line.strip().startswith("```"), ""
        if fence and not language:
            language = line.strip()[3:] or "text"
            known = ("python", "python no-run")
            assert language in known or not language.lower().startswith(("py", " ")), (
                f"line {number}: write ```python or ```python no-run, not ```{language}"
            )
        elif fence:
            language = ""
        elif language == "python":
            kept = line
        lines.append(kept)
    assert not language, "a block is not closed"
    return "\n".join(lines)


NUMBER = re.compile(r"-?\d+\.\d+")


def outputs(page: str) -> list[list[str]]:
    """The lines of each ```output block."""
    return [x.split("\n") for x in re.findall(r"^```output\n(.*?)\n```$", page, re.M | re.S)]


def is_alike(shown: str, printed: str) -> bool:
    """True of lines that are equal, or differ in the last digits of their fractions: processors
    round differently."""
    if NUMBER.split(shown) != NUMBER.split(printed.rstrip()):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(float(a) == pytest.approx(float(b), rel=0.02, abs=0.011) for a, b in pairs)


def not_printed(page: str, printed: str) -> list[str]:
    """The first ```output block that has not been printed after the ones before it; [] if none."""
    lines, at = printed.split("\n"), 0
    for block in outputs(page):
        ends = range(at + len(block), len(lines) + 1)
        found = (e for e in ends if all(map(is_alike, block, lines[e - len(block) : e])))
        end = next(found, None)
        if end is None:
            return block
        at = end
    return []


def run(script: Path, directory: Path) -> str:
    """Runs a program in an empty directory, and gives what it prints; examples take TX_SMALL=1 as a
    wish to be quick."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TX_SMALL": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize("page", [pytest.param(p, id=name(p)) for p in PAGES])
def test_page(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = program(text)
    if not code.strip():
        return  # a page may be prose alone; its fences have been read
    script = tmp_path / f"{page.stem}.py"
    script.write_text(code, encoding="utf-8")
    (tmp_path / "cwd").mkdir()
    printed = run(script, tmp_path / "cwd")
    assert not not_printed(text, printed), printed


@pytest.mark.parametrize(
    "example",
    [
        # The race trains seven models: one page of docs runs a part of it.
        pytest.param(
            p, id=name(p), marks=[pytest.mark.slow] if p.stem == "rnn_vs_transformer" else []
        )
        for p in EXAMPLES
    ],
)
def test_example(example: Path, tmp_path: Path) -> None:
    for needed in EXTRAS.get(example.stem, ()):
        if find_spec(needed) is None:
            pytest.skip(f"{name(example)} needs {needed}")
    run(example, tmp_path)


def test_figures_of_the_race_are_those_of_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the marked places is what the example makes of benchmarks/results, or says
    that there is nothing yet; the pictures that pages link to are there."""
    spec = importlib.util.spec_from_file_location("race", ROOT / "examples/rnn_vs_transformer.py")
    assert spec is not None and spec.loader is not None
    race = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "race", race)
    spec.loader.exec_module(race)
    for name in race.PAGES:
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert race.filled(page, race.results()) == page, (
            "run examples/rnn_vs_transformer.py --report"
        )
    for page in PAGES:
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if not (page.parent / link).exists()], page


def test_blocks_are_found_with_their_line_numbers() -> None:
    page = "# T\n```python\nx = 1\n```\ntext\n```python no-run\nboom\n```\n```\nboom\n```\n"
    assert program(page + "```python\nprint(x)\n```").splitlines()[2::10] == ["x = 1", "print(x)"]
    assert "boom" not in program(page)
    for wrong in ("``` python\n```", "```py\n```", "```python\nx"):
        with pytest.raises(AssertionError):
            program(wrong)


def test_outputs_are_compared_with_what_is_printed() -> None:
    page = "```output\na 1.00\n```\n```text\nboom\n```\n```output\nb\nc -2.5\n```\n"
    assert outputs(page) == [["a 1.00"], ["b", "c -2.5"]]
    assert not not_printed(page, "a 1.01\nbetween\nb\nc -2.52\n")
    for printed in ("a 1.2\nb\nc -2.5", "a 1.00\nb\nbetween\nc -2.5", "b\nc -2.5\na 1.00", ""):
        assert not_printed(page, printed)


@pytest.mark.parametrize("page", ["architecture", "inside-the-compiler", "glossary"])
def test_files_that_are_named_are_there(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:\w+/)+)`", text))
    assert len(names) > 4
    tops = ("tinygrad_tx", "tests", "benchmarks", "examples", "docs")
    folders = [f for top in tops for f in (ROOT / top, *(ROOT / top).rglob("*")) if f.is_dir()]
    places = [f"/{folder.relative_to(ROOT).as_posix()}/" for folder in folders]
    assert not [n for n in names if not any(place.endswith(f"/{n}") for place in places)]
    files = {
        "/" + path.relative_to(ROOT).as_posix()
        for top in ("tinygrad_tx", "tests", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
    }
    named = set(re.findall(r"(?<![\w/*{}])((?:\w+/)*\w+\.py)\b", text))
    assert len(named) > 4
    assert not [n for n in named if not any(path.endswith(f"/{n}") for path in files)]


def test_tests_that_are_named_are_there() -> None:
    names = {
        name
        for path in (*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / ".ci").iterdir()))
        for name in re.findall(r"\btests/[\w/]*\w(?:\.\w+)?", path.read_text(encoding="utf-8"))
    }
    assert len(names) > 20
    assert not [n for n in names if not (ROOT / n).exists()]
