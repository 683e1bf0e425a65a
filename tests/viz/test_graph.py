"""viz.graph: what is in the DOT text, and that the program dot makes pictures of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, viz
from tinygrad_tx.context import scope
from tinygrad_tx.node import ITEM, Graph
from tinygrad_tx.viz.boxes import is_data
from tinygrad_tx.viz.graph import READABLE

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs the program dot")


def transformer(**options: object) -> tx.models.Transformer:
    config = tx.models.TransformerConfig(
        vocab_size=32, d_model=16, n_heads=4, d_ff=24, n_encoder_layers=2, n_decoder_layers=2,
        **options,
    )  # fmt: skip
    return tx.models.Transformer(config)


def batch() -> tuple[tx.Tensor, tx.Tensor, tx.Tensor]:
    return tx.randint(3, 32, (2, 7)), tx.randint(3, 32, (2, 5)), tx.randint(3, 32, (2, 5))


@pytest.fixture(scope="module")
def loss() -> tx.Tensor:
    return transformer().loss(*batch())


def ops(of: tx.Tensor | Graph) -> int:
    """How many ops a graph has."""
    nodes = of if isinstance(of, Graph) else Graph([of.node])
    return sum(not is_data(n) and n.op is not ITEM for n in nodes)


def boxes(dot: str) -> dict[str, str]:
    """The lines of the boxes, by name."""
    return {m[1]: m[0] for m in re.finditer(r"^\t*(n\d+) \[.*$", dot, re.M)}


def edges(dot: str) -> list[tuple[str, str]]:
    return re.findall(r"^\t*(n\d+) -> (n\d+)\b", dot, re.M)


def frames(dot: str) -> list[str]:
    return re.findall(r'subgraph "?cluster_([\w.]+)"? \{', dot)


def titles(dot: str) -> list[str]:
    """The names of the collapsed modules."""
    return re.findall(r"<b>(.*?)</b>", dot)


def counted(dot: str) -> int:
    """How many ops the picture accounts for: those of modules, and single ones."""
    inside = sum(int(n.replace(",", "")) for n in re.findall(r">([\d,]+) ops?\b", dot))
    single = [b for b in boxes(dot).values() if "<b>" not in b and "shape=plain" not in b]
    return inside + len(single)


def assert_no_circle(dot: str) -> None:
    names, sorter = boxes(dot), TopologicalSorter[str]()
    for source, target in edges(dot):
        assert source in names and target in names
        sorter.add(target, source)
    sorter.prepare()  # CycleError names the circle


# The Transformer ---------------------------------------------------------------------------------


def test_a_transformer_at_the_default_depth(loss: tx.Tensor) -> None:
    dot = viz.graph(loss).dot
    assert len(boxes(dot)) <= READABLE
    stacks = [f"Transformer.{s}" for s in ("encoder", "decoder")]
    layers = [f"{stack}.layers.{i}" for stack in stacks for i in (0, 1)]
    assert sorted(frames(dot)) == sorted(["Transformer", *stacks, *layers])
    found = titles(dot)
    assert [found.count(t) for t in ("self_attn", "cross_attn", "ffn")] == [4, 2, 4]
    assert found.count("norm1") == found.count("norm2") == 4 and found.count("norm3") == 2
    assert dot.count('label="+"') == 2 * 2 + 2 * 3  # a residual connection around each sub-layer
    assert "(2, 5, 16)" in dot and "(2, 7, 16)" in dot and "int64 (2, 7)" in dot
    assert "1 parameter, 512 numbers, shared" in dot  # source, target and output: one matrix
    assert counted(dot) == ops(loss)
    assert_no_circle(dot)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 9])
def test_depth_opens_modules_level_by_level(loss: tx.Tensor, depth: int) -> None:
    dot = viz.graph(loss, depth).dot
    assert counted(dot) == ops(loss)
    assert_no_circle(dot)
    assert all(frame.replace("layers.", "").count(".") < depth for frame in frames(dot))
    assert (titles(dot) == ["Transformer"]) == (depth == 0)
    assert (titles(dot) == []) == (depth >= 5)
    if depth == 3:
        assert "17 ops: 4 matmul, attention" in dot and "4 parameters, 1,024 numbers" in dot


def test_many_layers_stay_readable() -> None:
    model = nn.Sequential(*(nn.Sequential(*(nn.Linear(4, 4) for _ in range(9))) for _ in range(9)))
    dot = viz.graph(model(tx.ones(1, 4))).dot
    assert len(boxes(dot)) <= READABLE
    assert counted(dot) == 9 * 9 * 3


def test_a_compiled_training_step() -> None:
    model = transformer(tie_embeddings=False)

    @tx.compile
    def step(*tensors: tx.Tensor) -> tx.Tensor:
        loss = model.loss(*tensors)
        loss.backward()
        return loss

    step(*batch())
    for depth in (None, 0, 1, 2, 3):
        dot = viz.graph(step.graph(), depth).dot
        assert counted(dot) == ops(step.graph())
        assert_no_circle(dot)
    once = viz.graph(step.graph(), 1).dot
    # Forward, backward, and what both stacks share (positions, the stream of random numbers).
    assert 2 <= titles(once).count("encoder") <= 3
    assert "attention_grad" in once


# Boxes -------------------------------------------------------------------------------------------


def test_each_call_of_a_module_is_a_box() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            return self.dropout(self.dropout(x).exp()) * 2

    dot = viz.graph(Net()(tx.ones(3, requires_grad=True)), 1).dot
    assert titles(dot) == ["dropout", "dropout"]
    assert counted(dot) == 6
    assert_no_circle(dot)


def test_modules_that_read_each_other_are_cut() -> None:
    y = tx.ones(3, requires_grad=True)
    for _ in range(3):
        with scope("Net.a"):
            left = y * 2
        with scope("Net.b"):
            right = left + 1
        with scope("Net.a"):
            y = left + right
    dot = viz.graph(y, 1).dot
    assert sorted(titles(dot)) == ["a"] * 4 + ["b"] * 3
    assert counted(dot) == 9
    assert_no_circle(dot)


def test_several_tensors_scalars_and_several_results() -> None:
    x = tx.ones(2, 3, requires_grad=True)
    dot = viz.graph([2 - x, x - 2, x.sum(), x]).dot
    assert "<2 −>" in dot and "<− 2>" in dot and "<sum axis=(0, 1)>" in dot
    assert dot.count("penwidth=2") == 4
    assert dot.count("shared parameter") == 1
    norm = tx.randn(2, 8).requires_grad_()
    y = nn.functional.layer_norm(norm, (8,), tx.ones(8, requires_grad=True), tx.zeros(8))
    (g,) = tx.autograd.gradients([y.node], [tx.ones(2, 8)], [norm.node], create_graph=True).values()
    dot = viz.graph(g).dot
    assert "layer_norm_grad" in dot and "item" not in dot


def test_a_tensor_without_history() -> None:
    assert len(boxes(viz.graph(tx.ones(2)).dot)) == 1
    with tx.no_grad():
        y = tx.ones(2, requires_grad=True).exp()
    assert "(2,)" in viz.graph([y, y]).dot


def test_names_are_escaped() -> None:
    with scope("Net.a<b>&c"):
        y = tx.ones(2, requires_grad=True).exp()
    assert "a&lt;b&gt;&amp;c" in viz.graph(y, 1).dot


def test_a_deep_graph() -> None:
    x = tx.ones(2, requires_grad=True)
    y = x
    for i in range(2000):
        with scope(f"Net.{'ab'[i % 2]}"):
            y = y + x
    for depth, wanted in ((0, 1), (1, 2000), (2, 2000), (None, 1)):
        dot = viz.graph(y, depth).dot
        assert len(boxes(dot)) - dot.count("shape=plain") == wanted
        assert counted(dot) == 2000
        assert_no_circle(dot)


# Files, notebooks, errors -------------------------------------------------------------------------


@needs_dot
def test_pictures(loss: tx.Tensor, tmp_path: Path) -> None:
    drawing = viz.graph(loss)
    assert drawing.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    svg = drawing.save(str(tmp_path / "a.svg")).read_text()
    places = {t: [float(y) for y in re.findall(rf'y="(-?[\d.]+)"[^>]*>{t}<', svg)] for t in
              ("embedding", "cross_attn", "cross_entropy")}  # fmt: skip
    means = [sum(ys) / len(ys) for ys in places.values()]
    assert all(above < below for above, below in pairwise(means))  # it reads downwards
    assert drawing._repr_mimebundle_()["image/svg+xml"] == drawing._repr_svg_()


def test_without_the_program_dot(
    loss: tx.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing = viz.graph(loss)
    assert drawing.save(tmp_path / "a.dot").read_text() == drawing.dot
    with pytest.raises(tx.errors.UserError, match="apt install graphviz") as caught:
        drawing.save(tmp_path / "a.svg")
    assert "\n" not in str(caught.value) and not (tmp_path / "a.svg").exists()
    assert drawing._repr_svg_() is None
    assert drawing._repr_mimebundle_() == {"text/plain": drawing.dot}


def test_errors(loss: tx.Tensor, tmp_path: Path) -> None:
    with pytest.raises(tx.errors.UserError, match=r"\.dot, \.svg, \.png"):
        viz.graph(loss).save(tmp_path / "a.jpeg")
    with pytest.raises(tx.errors.UserError, match="depth"):
        viz.graph(loss, -1)
    x = tx.ones(2, requires_grad=True)
    y = x.exp()
    total = y.sum()
    total.backward()
    for released in (total, y, (y * 2).sum()):
        with pytest.raises(tx.errors.GradError, match="before backward"):
            viz.graph(released)


def test_importing_viz_loads_neither_graphviz_nor_matplotlib() -> None:
    code = (
        "import sys, tinygrad_tx.viz; print(sorted({'graphviz', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["a\\", "\\", 'q"', "<b>", "x\\\\", "n\\nb", "\\G"])
def test_names_mean_themselves_in_dot(name: str) -> None:
    """A backslash, a quote or <...> in a module's name is no mark of DOT's."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            return self.linear(x).relu()

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, Inner())

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            out: tx.Tensor = getattr(self, name)(x)
            return out

    quoted = re.compile(r'"(?:[^"\\]|\\.)*"')
    for depth in (0, 1, 2):
        text = viz.graph(Named()(tx.ones(1, 2)).sum(), depth=depth).dot
        left = quoted.sub("", re.sub(r"<<.*>>|=<[^>]*>", "", text))
        assert '"' not in left and "\\" not in left
        labels = re.findall(r"<b>(.*?)</b>", text)
        assert not [label for label in labels if "\\" in label]
    written = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert f"label={written}" in text
