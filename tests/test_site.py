"""The site of the documentation: its reference has every public name, with a docstring, and its
links are those of the repository. `.ci/run` builds it, strictly."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from browser import NARROW, WIDE, browser, complaints, dark, opened, overflow

import tinygrad_tx as tx

ROOT = Path(__file__).parents[1]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pages.py imports reference.py by this name
    spec.loader.exec_module(module)
    return module


reference, pages, commands = hook("reference"), hook("pages"), hook("commands")


def test_every_public_name_has_a_docstring() -> None:
    mute = [entry.path for entry in reference.entries() if not reference.said(entry)]
    for entry in reference.entries():
        if inspect.isclass(entry.value):
            for name, _ in reference.members(entry.value):
                if not inspect.getdoc(getattr(entry.value, name)):
                    mute.append(f"{entry.path}.{name}")
    mute += [path for path, module in reference.modules().items() if not module.__doc__]
    assert not mute


def test_every_public_name_is_in_the_reference() -> None:
    found = reference.modules()
    rooms = ("nn", "nn.functional", "nn.init", "optim", "optim.lr_scheduler", "models", "data")
    rooms += ("training", "decoding", "viz", "compiler", "backends", "errors")
    assert {"tx", *(f"tx.{room}" for room in rooms)} <= found.keys()
    text = reference.pages()
    for path, module in found.items():
        page = text[f"{path}.md"]
        names = getattr(module, "__all__", None) or reference.public(module)
        lacking = [n for n in names if not re.search(rf"^#+ `{n}`|\[`{n}`\]", page, re.MULTILINE)]
        assert names and not lacking, (path, lacking)
    heads = "\n".join(re.findall(r"^#+ .*", "\n".join(text.values()), re.MULTILINE))
    for told in ("tx.Tensor.backward", "tx.nn.functional.cross_entropy", "tx.float32", "tx.sum"):
        assert f"{{ #{told} }}" in heads
    assert {"cross_entropy", "conv1d", "relu"} <= set(reference.public(tx.nn.functional))
    assert not {"shown", "Any", "tensor", "refuse"} & set(reference.public(tx.nn.functional))
    assert "StepLR" in reference.public(tx.optim.lr_scheduler)
    # What a class has of a public base is told there.
    assert "parameters" in dict(reference.members(tx.nn.Module))
    assert "parameters" not in dict(reference.members(tx.nn.Linear))
    assert "softmax" in dict(reference.members(tx.Tensor))


def test_links_of_the_reference_lead_somewhere() -> None:
    text = reference.pages()
    heads = [(file, x) for file, page in text.items() for x in re.findall(r"{ #(.*?) }", page)]
    anchors = {f"{file}#{anchor}" for file, anchor in heads}
    assert len(anchors) == len(heads) > 300
    links = [x for page in text.values() for x in re.findall(r"`\]\(([^)]+)\)", page)]
    assert len(links) > 300
    assert not [x for x in links if x not in anchors and x not in text]


def test_signatures() -> None:
    def short(x: tx.Tensor, /, n: int = 2, *, dtype: object = tx.float32) -> tx.Tensor: ...

    def long(self: object, given: str = "a" * 60, *, key: object = object()) -> None: ...

    assert reference.signature(short, "f") == (
        "f(x: tx.Tensor, /, n: int = 2, *, dtype: object = tx.float32) -> tx.Tensor"
    )
    lines = ["f(", f'    given: str = "{"a" * 60}",'.replace('"', "'"), "    *,"]
    lines += ["    key: object = ...,", ") -> None"]
    assert reference.signature(long, "f", method=True) == "\n".join(lines)


def test_docstrings_become_markdown() -> None:
    doc = "x * y_ of <a>, `x * y`.\n\n    f(*args)\n\n# no heading. n, m: sizes.\nk: a [list]."
    assert reference.prose(doc, ["n", "m", "k"]) == (
        "x \\* y\\_ of \\<a\\>, `x * y`.\n\n    f(*args)\n\n"
        "\\# no heading. **`n`**, **`m`**: sizes.  \n**`k`**: a \\[list\\]."
    )


def test_every_command_is_in_the_reference_with_every_option() -> None:
    text = commands.page()
    parts = dict(re.findall(r"^## `([a-z]+)`.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert [*parts] == [command.name for command in commands.COMMANDS]
    for command in commands.COMMANDS:
        parser = argparse.ArgumentParser(add_help=False)
        command.arguments(parser)
        for action in parser._actions:
            names = ", ".join(action.option_strings)
            row = rf"^\| `{re.escape(names)}[^`]*` \| \S.* \|$"
            assert re.search(row, parts[command.name], re.MULTILINE), (command.name, action.dest)
        assert all(f"tinygrad-tx {line}\n" in parts[command.name] for line, _ in command.examples)
    assert "| `--top-k K` | from the K most probable tokens only |" in parts["translate"]
    assert "| search | by default as the run's config.toml says |" in parts["translate"]


@pytest.mark.parametrize(
    ("source", "uri", "link", "led"),
    [
        ("docs/gpu.md", "gpu.md", "(../benchmarks/README.md#a)", "(benchmarks.md#a)"),
        ("docs/gpu.md", "gpu.md", "(results.md#w1)", "(results.md#w1)"),
        ("docs/extending/a.md", "extending/a.md", "(../gpu.md)", "(../gpu.md)"),
        (
            "docs/extending.md",
            "extending.md",
            "(../examples/custom_op.py)",
            "(examples/custom_op.md)",
        ),
        ("CONTRIBUTING.md", "contributing.md", "(docs/gpu.md)", "(gpu.md)"),
        ("CONTRIBUTING.md", "contributing.md", "(CHANGELOG.md)", "(changelog.md)"),
        ("docs/a.md", "a.md", "(https://a.b/c.md)", "(https://a.b/c.md)"),
        ("docs/a.md", "a.md", "(../README.md)", "(index.md)"),
    ],
)
def test_links_out_of_docs_lead_to_pages_of_the_site(
    source: str, uri: str, link: str, led: str
) -> None:
    assert pages._linked(f"[x]{link}", source, uri) == f"[x]{led}"


def test_what_is_shown_of_an_example_is_its_docstring_and_its_program() -> None:
    page = pages._shown(ROOT / "examples" / "custom_op.py")
    assert page.startswith("# ") and page.count('"""') == 0 and "tx.Op(" in page
    for name in pages.OUTSIDE:
        assert (ROOT / name).exists()


@pytest.mark.slow
def test_the_site_is_read_and_searched_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("material", reason='pip install -e ".[docs]"')
    build = ["mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([sys.executable, "-m", *build], cwd=ROOT, env=environment, check=True)
    html = "\n".join(page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html"))
    assert not re.findall(r'(?:src|<link[^>]* href)="?https?://', html)
    for size in (WIDE, NARROW):
        with browser(size) as driver:
            for on in (False, True):
                for name in ("index", "tutorial", "reference/tx.nn", "gpu"):
                    opened(driver, tmp_path / f"{name}.html")
                    dark(driver, on)
                    driver.execute_script("localStorage.clear()")
                    driver.refresh()
                    body = driver.find_element("css selector", "body")
                    scheme = body.get_attribute("data-md-color-scheme")
                    assert scheme == ("slate" if on else "default")
                    assert overflow(driver) <= 0 and not complaints(driver)
    with browser() as driver:
        opened(driver, tmp_path / "extending" / "rule.html")
        driver.find_element("css selector", ".md-search__input").send_keys("xavier")
        for _ in range(100):
            found = driver.find_elements("css selector", ".md-search-result__item")
            if found:
                break
            time.sleep(0.1)
        assert "xavier_uniform_" in found[0].text and not complaints(driver)
