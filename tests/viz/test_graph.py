"""viz.graph: what is in a picture and where it stands; drawing needs no program, and it ends."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from graphlib import TopologicalSorter
from importlib.util import find_spec
from itertools import combinations, pairwise
from pathlib import Path

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, viz
from tinygrad_tx.context import scope
from tinygrad_tx.node import ITEM, Graph
from tinygrad_tx.training import works
from tinygrad_tx.training.outlook import on_meta
from tinygrad_tx.viz.boxes import is_data
from tinygrad_tx.viz.picture import READABLE
from tinygrad_tx.viz.scene import text_width

needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")


def transformer(layers: int = 2, **options: object) -> tx.models.Transformer:
    config = tx.models.TransformerConfig(
        vocab_size=32, d_model=16, n_heads=4, d_ff=24, n_encoder_layers=layers,
        n_decoder_layers=layers, **options,
    )  # fmt: skip
    return tx.models.Transformer(config)


def batch() -> tuple[tx.Tensor, tx.Tensor, tx.Tensor]:
    return tx.randint(3, 32, (2, 7)), tx.randint(3, 32, (2, 5)), tx.randint(3, 32, (2, 5))


MODEL = transformer()


@pytest.fixture(scope="module")
def loss() -> tx.Tensor:
    src, tgt_in, tgt_out = batch()
    return MODEL.loss(src, tgt_in, tgt_out)


@pytest.fixture(scope="module")
def mlp_step() -> tx.compiler.compiled.Compiled:
    model = nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, 1))
    opt = tx.optim.Adam(model.parameters(), 1e-2)

    @tx.compile
    def train_step(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss

    train_step(tx.randn(8, 2), tx.randn(8, 1))
    train_step.kept = model  # type: ignore[attr-defined]
    return train_step


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
    return re.findall(r'subgraph "cluster_([^"]+)" \{', dot)


def titles(dot: str) -> list[str]:
    """The names of the closed modules and lines."""
    return re.findall(r"<b>(.*?)</b>", dot)


def counted(dot: str) -> int:
    """How many ops the picture accounts for: those of boxes that say so, and single ones."""
    inside = sum(int(n.replace(",", "")) for n in re.findall(r">([\d,]+) ops?\b", dot))
    single = [b for b in boxes(dot).values() if not re.search(r">[\d,]+ ops?\b|shape=plain", b)]
    return inside + len(single)


def assert_no_circle(dot: str) -> None:
    names, sorter = boxes(dot), TopologicalSorter[str]()
    for source, target in edges(dot):
        assert source in names and target in names
        sorter.add(target, source)
    sorter.prepare()  # CycleError names the circle


SVG = "{http://www.w3.org/2000/svg}"


def places(svg: str) -> dict[str, list[tuple[float, float]]]:
    """Where each text of a picture stands."""
    found: dict[str, list[tuple[float, float]]] = {}
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        found.setdefault(text.text or "", []).append((float(text.get("x")), float(text.get("y"))))  # type: ignore[arg-type]
    return found


def assert_texts_apart(svg: str) -> None:
    """No text stands on another one, nor beyond the picture."""
    root = ElementTree.fromstring(svg)
    areas = []
    for text in root.iter(f"{SVG}text"):
        size, x, y = (float(text.get(key)) for key in ("font-size", "x", "y"))  # type: ignore[arg-type]
        width = text_width(text.text or "", size, text.get("font-weight") == "bold")
        left = x if text.get("text-anchor") == "start" else x - width / 2
        areas.append((left, left + width, y - 0.75 * size, y + 0.2 * size, text.text))
    assert min(a[0] for a in areas) >= 0
    assert max(a[1] for a in areas) <= float(root.get("width"))  # type: ignore[arg-type]
    assert max(a[3] for a in areas) <= float(root.get("height"))  # type: ignore[arg-type]
    for a, b in combinations(areas, 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2], (a, b)


def assert_boxes_apart(svg: str) -> None:
    """Two rectangles are one in the other, or apart; lines do not go through boxes of ops."""
    rects = [
        tuple(float(r.get(k)) for k in ("x", "y", "width", "height"))  # type: ignore[arg-type]
        for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")
        if r.get("stroke")
    ]
    for (x, y, w, h), (u, v, p, q) in combinations(rects, 2):
        apart = x + w <= u or u + p <= x or y + h <= v or v + q <= y
        inside = x <= u and u + p <= x + w and y <= v and v + q <= y + h
        around = u <= x and x + w <= u + p and v <= y and y + h <= v + q
        assert apart or inside or around


# The Transformer ---------------------------------------------------------------------------------


def test_a_transformer_at_the_default_depth(loss: tx.Tensor) -> None:
    drawing = viz.graph(loss)
    dot = drawing.dot
    assert len(boxes(dot)) <= READABLE
    stacks = [f"Transformer.{s}" for s in ("encoder", "decoder")]
    layers = [f"{stack}.layers.{i}" for stack in stacks for i in (0, 1)]
    assert sorted(frames(dot)) == sorted(["Transformer", "loss", *stacks, *layers])
    found = titles(dot)
    attention = [found.count(f"{t} MultiHeadAttention") for t in ("self_attn", "cross_attn")]
    assert attention == [4, 2] and found.count("ffn FeedForward") == 4
    assert found.count("norm1 LayerNorm(16,)") == found.count("norm2 LayerNorm(16,)") == 4
    assert dot.count("label=<+<br/>") == 2 * 2 + 2 * 3  # a residual connection around each part
    assert "(2, 5, 16)" in dot and "(2, 7, 16)" in dot and "int64 (2, 7)" in dot
    assert "embedding.weight (32, 16), shared" in dot  # source, target and output: one matrix
    assert counted(dot) == ops(loss)
    assert_no_circle(dot)
    assert (
        "4 self_attn of 13 boxes" in drawing.note and "folded: depth=4 opens them" in drawing.note
    )
    assert drawing.note in drawing.svg
    assert_texts_apart(drawing.svg)
    assert_boxes_apart(drawing.svg)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 9])
def test_depth_opens_modules_level_by_level(loss: tx.Tensor, depth: int) -> None:
    drawing = viz.graph(loss, depth=depth)
    dot = drawing.dot
    assert counted(dot) == ops(loss)
    assert_no_circle(dot)
    assert all(name.replace("layers.", "").count(".") < depth for name in frames(dot))
    assert (titles(dot) == ["Transformer", "loss"]) == (depth == 0)
    assert (titles(dot) == []) == (depth >= 5)
    assert (drawing.note == "") == (depth >= 5)
    if depth == 3:
        assert "17 ops: 4 matmul, attention" in dot and "4 parameters, 1,024 numbers" in dot
    assert_texts_apart(drawing.svg)
    assert_boxes_apart(drawing.svg)


def test_the_note_keeps_its_word() -> None:
    model = nn.Sequential(*(nn.Sequential(*(nn.Linear(4, 4) for _ in range(9))) for _ in range(9)))
    y = model(tx.ones(1, 4))
    drawing = viz.graph(y)
    assert len(boxes(drawing.dot)) <= READABLE and counted(drawing.dot) == 9 * 9 * 3
    assert drawing.note == "9 Sequential of 9 boxes folded: depth=2 opens them"
    opened = viz.graph(y, depth=2).dot
    assert titles(opened) == [f"{i} Linear(4, 4)" for i in range(9)] * 9


def test_a_model_is_drawn_without_running(loss: tx.Tensor) -> None:
    model = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1))
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    drawn = tx.random.get_state()
    drawing = viz.graph(model, tx.ones(8, 2))
    assert model.training and all(m.training for m in model.modules())
    assert all((model.state_dict()[name].numpy() == value).all() for name, value in before.items())
    assert tx.random.get_state() == drawn
    assert all(p.grad is None for p in model.parameters())
    assert "0 Linear(2, 16)" in titles(drawing.dot) and "dropout" not in drawing.dot
    assert "input" in places(drawing.svg)  # as forward calls it
    src, tgt_in, _ = batch()
    svg = viz.graph(MODEL, src, tgt_in).svg
    assert {"src", "tgt_in", "padding mask"} <= set(places(svg))


def test_a_model_that_asks_for_values_is_run_and_put_back() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2, 2)
            self.register_buffer("calls", tx.tensor(0.0))

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            self.calls += 1
            return self.linear(x).relu() if x.sum().item() > 0 else self.linear(x)

    model = Asks()
    assert "linear Linear(2, 2)" in titles(viz.graph(model, tx.ones(1, 2)).dot)
    assert model.calls.item() == 0 and model.training


# A step of training ------------------------------------------------------------------------------


def test_a_training_step_in_two_frames(mlp_step: tx.compiler.compiled.Compiled) -> None:
    drawing = viz.graph(mlp_step)
    at = places(drawing.svg)
    assert "train_step" in at and "forward" in at and "backward" in at
    assert at["forward"][0][0] < at["backward"][0][0]
    for layer in ("0 Linear(2, 16)", "1 GELU", "2 Linear(16, 1)"):
        (left, y), (right, facing) = at[layer]
        assert left < right and abs(y - facing) < 40  # of one row: boxes differ in height
    down = [at[t][0][1] for t in ("0 Linear(2, 16)", "1 GELU", "2 Linear(16, 1)")]
    down += [at["loss = ((model(x) - y) ** 2).mean()"][0][1], at["opt.step()"][0][1]]
    assert down == sorted(down)
    assert len(at["loss.backward()"]) == len(at["opt.step()"]) == 1
    assert "opt.zero_grad()" not in at  # it makes nothing
    assert {"x", "y", "0.weight (16, 2)", "2.bias (1,)"} <= set(at)
    assert counted(drawing.dot) == ops(mlp_step.graph())
    assert "test_graph.py:" in drawing.svg  # a hover tells the line
    assert_texts_apart(drawing.svg)
    assert_boxes_apart(drawing.svg)
    assert titles(viz.graph(mlp_step.graph()).dot) == titles(drawing.dot)


@pytest.mark.parametrize("depth", [None, 0, 1, 2, 3, 9])
def test_a_transformers_step(depth: int | None) -> None:
    model = transformer(1)
    opt = tx.optim.Adam(model.parameters(), 1e-3)

    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss

    drawing = viz.graph(step, *batch(), depth=depth)  # recorded alone
    assert all(p.grad is None for p in model.parameters())
    found = titles(drawing.dot)
    assert (len([t for t in found if t.startswith("tx.optim.clip_grad_norm_")]) == 1) == (
        depth != 9
    )
    assert_texts_apart(drawing.svg)
    assert_boxes_apart(drawing.svg)
    at = places(drawing.svg)
    if depth is None:
        assert {"src", "tgt_in", "tgt_out", "padding mask", "opt.step()"} <= set(at)
        for name in ("self_attn MultiHeadAttention", "ffn FeedForward", "norm1 LayerNorm(16,)"):
            there = sorted(at[name])
            assert len(there) == 4  # encoder and decoder, and their gradients beside them
            left, right = there[:2], there[2:]
            rows = zip(sorted(y for _, y in left), sorted(y for _, y in right), strict=True)
            assert all(abs(a - b) < 40 for a, b in rows)


def test_what_no_module_makes_stands_by_line() -> None:
    w = tx.ones(4, 4, requires_grad=True)

    def step(x: tx.Tensor) -> tx.Tensor:
        hidden = (x @ w).relu()
        total = (hidden @ w).sum()
        total.backward()
        return total

    drawing = viz.graph(step, tx.ones(2, 4), depth=0)
    at = places(drawing.svg)
    assert len(at["total.backward()"]) == 2  # each faces what it is the gradient of
    for line in ("hidden = (x @ w).relu()", "total = (hidden @ w).sum()"):
        here, there = at[line][0], at[f"of {line}"][0]
        assert here[0] < there[0] and abs(here[1] - there[1]) < 40
    assert "hidden = (x @ w).relu()" in frames(viz.graph(step, tx.ones(2, 4)).dot)
    x = tx.ones(2, 4)
    eager = (x @ w).relu()
    assert "eager = (x @ w).relu()" in frames(viz.graph(eager).dot)


def test_rounds_of_forward_and_backward_stand_below_each_other() -> None:
    model = nn.Linear(3, 3)
    opt = tx.optim.SGD(model.parameters(), 0.1)

    def two(x: tx.Tensor) -> tx.Tensor:
        (model(x) ** 2).sum().backward()
        opt.step()
        opt.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    at = places(viz.graph(two, tx.ones(2, 3), depth=0).svg)
    assert len(at["forward"]) == len(at["backward"]) == 2 and len(at["opt.step()"]) == 2
    firsts, updates = sorted(y for _, y in at["forward"]), sorted(y for _, y in at["opt.step()"])
    assert firsts[0] < updates[0] < firsts[1] < updates[1]


def test_gradients_that_add_up_are_closed_as_what_they_face() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 3))

    def accumulate(*xs: tx.Tensor) -> tx.Tensor:
        for x in xs:
            (model(x) ** 2).mean().backward()
        return xs[0]

    drawing = viz.graph(accumulate, tx.ones(5, 2), tx.ones(5, 2))
    layers = [f"Sequential{call}" for call in ("", "#2", "#3", "#4")]
    assert sorted(f for f in frames(drawing.dot) if "Sequential" in f) == layers
    assert titles(drawing.dot).count("1 GELU") == 4
    assert_boxes_apart(drawing.svg)
    assert {"xs[0]", "xs[1]"} <= set(places(drawing.svg))


def test_a_loop() -> None:
    lstm = nn.LSTM(4, 4)

    def step(x: tx.Tensor) -> tx.Tensor:
        y, _ = lstm(x)
        loss = y.sum()
        loss.backward()
        return loss

    drawing = viz.graph(step, tx.ones(6, 2, 4))
    assert re.search(r"6 rounds of \d+ ops: matmul", drawing.svg)
    assert_texts_apart(drawing.svg)


# Boxes -------------------------------------------------------------------------------------------


def test_each_call_of_a_module_is_a_box() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(3, 3)

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            return self.layer(self.layer(x)) * 2

    net = Net()
    dot = viz.graph(net(tx.ones(1, 3))).dot
    assert titles(dot) == ["layer Linear(3, 3)"] * 2 and counted(dot) == 7
    assert_no_circle(dot)
    assert frames(viz.graph(net(tx.ones(1, 3)), depth=2).dot)[1:] == [
        "Net.layer",
        "Net.layer#2",
    ]


def test_two_models_of_one_class_are_two() -> None:
    a, b = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(3, 4))
    assert titles(viz.graph(b(a(tx.ones(1, 2)))).dot) == ["0 Linear(2, 3)", "0 Linear(3, 4)"]


def test_modules_that_read_each_other_are_cut() -> None:
    y = tx.ones(3, requires_grad=True)
    for _ in range(3):
        with scope("a"):
            left = y * 2
        with scope("b"):
            right = left + 1
        with scope("a"):
            y = left + right
    dot = viz.graph(y, depth=0).dot
    assert sorted(titles(dot)) == ["a"] * 4 + ["b"] * 3
    assert counted(dot) == 9
    assert_no_circle(dot)


def test_a_square_reads_its_operand_twice() -> None:
    x = tx.ones(3, requires_grad=True)
    drawing = viz.graph(x * x)
    assert len(edges(drawing.dot)) == 2 and len(set(edges(drawing.dot))) == 1
    lines = re.findall(r'<path d="([^"]+)"[^>]*stroke-dasharray', drawing.svg)
    assert len(lines) == len(set(lines)) == 2


def test_several_tensors_scalars_and_several_results() -> None:
    x = tx.ones(2, 3, requires_grad=True)
    drawing = viz.graph([2 - x, x - 2, x.sum(), x])
    dot = drawing.dot
    assert "<2 −<br/>" in dot and "<− 2<br/>" in dot and "<sum axis=(0, 1)<br/>" in dot
    assert dot.count("penwidth=2") == 3
    assert "x" in places(drawing.svg) and "shared parameter" in places(drawing.svg)
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


@pytest.mark.parametrize("name", ["a<b>&c", "a\\", "\\", 'q"', "<b>", "x\\\\", "n\\nb", "\\G"])
def test_names_mean_themselves(name: str) -> None:
    """A backslash, a quote or <...> in a module's name is no mark of DOT's, nor of SVG's."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2, 2)

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            return self.linear(x).relu()

    class Named(nn.Module):
        def __init__(self) -> None:
            setattr(self, name, Inner())

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            out: tx.Tensor = getattr(self, name)(x)
            return out

    quoted = re.compile(r'"(?:[^"\\]|\\.)*"')
    y = Named()(tx.ones(1, 2)).sum()
    for depth in (0, 1, 2):
        drawing = viz.graph(y, depth=depth)
        left = quoted.sub("", re.sub(r"<<.*?>>|=<.*?> tooltip", "", drawing.dot))
        assert '"' not in left and "\\" not in left
        assert not [label for label in titles(drawing.dot) if "\\" in label]
        ElementTree.fromstring(drawing.svg)
    written = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + ' Inner"'
    assert f"label={written}" in viz.graph(y, depth=2).dot
    assert f"{name} Inner" in places(viz.graph(y, depth=2).svg)


# Work is bounded ---------------------------------------------------------------------------------


def test_a_deep_graph() -> None:
    x = tx.ones(2, requires_grad=True)
    y = x
    for i in range(2000):
        with scope("ab"[i % 2]):
            y = y + x
    drawing = viz.graph(y)
    assert counted(drawing.dot) == 2000 and len(drawing.svg) > 100_000
    for _ in range(2000):
        y = y + x
    assert len(titles(viz.graph(y, depth=0).dot)) == 2001  # the lines after that are one box


def test_the_step_of_w3_is_drawn_soon() -> None:
    """In 10 s of one core; it takes one or two."""
    with on_meta():
        work = works.work("W3")
        _, run = works.begin(work)
        step = tx.compile(run)
        step(*(tx.zeros(work["batch"], work["length"], dtype=tx.int64) for _ in range(3)))
    assert len(step.graph()) > 5000
    began = time.process_time()
    drawing = viz.graph(step.graph())
    svg = drawing.svg
    assert viz.graph(step).note == "6 layers of 12 boxes, 6 layers of 8 boxes folded: " \
        "depth=3 opens them"  # fmt: skip
    assert time.process_time() - began < 10
    assert len(boxes(drawing.dot)) <= 3 * READABLE
    assert_boxes_apart(svg)


# Files, notebooks, errors -------------------------------------------------------------------------


def test_a_picture_is_the_same_each_time() -> None:
    pictures = {viz.graph(transformer(1), *batch()[:2], depth=3).svg for _ in range(4)}
    assert len(pictures) == 1


def test_a_pdf_is_the_same_each_time(loss: tx.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No date is in it."""
    pytest.importorskip("matplotlib")
    found = set()
    for seconds in ("0", "1000000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
        found.add(viz.graph(loss).render("pdf"))
    assert len(found) == 1
    with pytest.raises(
        tx.errors.UserError, match="it is drawn as svg, dot, png, pdf, not as 'gif'"
    ):
        viz.graph(loss).render("gif")


def test_files_without_any_program(
    loss: tx.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing = viz.graph(loss)
    assert drawing.save(tmp_path / "a.dot").read_text(encoding="utf-8") == drawing.dot
    svg = drawing.save(str(tmp_path / "a.svg")).read_text(encoding="utf-8")
    at = places(svg)
    means = [
        sum(y for _, y in at[t]) / len(at[t])
        for t in ("embedding Embedding(32, 16)", "cross_attn MultiHeadAttention", "cross_entropy")
    ]
    assert all(above < below for above, below in pairwise(means))  # it reads downwards
    shown = drawing._repr_mimebundle_()
    assert shown["image/svg+xml"] == drawing._repr_svg_() == svg
    assert re.fullmatch(r"Drawing\(\d+ ops in \d+ boxes\)", shown["text/plain"])


@needs_matplotlib
def test_pixels(loss: tx.Tensor, tmp_path: Path) -> None:
    drawing = viz.graph(loss, depth=1)
    assert drawing.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert drawing.save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_without_matplotlib(
    loss: tx.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for form in ("png", "pdf"):
        with pytest.raises(tx.errors.UserError, match=r'pip install "tinygrad_tx\[plots\]"') as got:
            viz.graph(loss).save(tmp_path / f"a.{form}")
        assert "\n" not in str(got.value) and not (tmp_path / f"a.{form}").exists()


def test_errors(loss: tx.Tensor, tmp_path: Path) -> None:
    with pytest.raises(tx.errors.UserError, match=r"\.svg, \.dot, \.png, \.pdf"):
        viz.graph(loss).save(tmp_path / "a.jpeg")
    with pytest.raises(tx.errors.UserError, match="depth"):
        viz.graph(loss, depth=-1)
    with pytest.raises(TypeError, match="depth must be a whole number"):
        viz.graph(loss, depth=1.5)  # type: ignore[arg-type]
    with pytest.raises(tx.errors.TraceError, match="before its first call"):
        viz.graph(tx.compile(lambda x: x))
    with pytest.raises(tx.errors.UserError, match=r"viz\.graph\(model, x\)"):
        viz.graph(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="several Tensors go into a list"):
        viz.graph(loss, loss)
    with pytest.raises(TypeError, match="with the inputs of a call"):
        viz.graph(lambda x: x)
    for nothing in (3, [3]):
        with pytest.raises(TypeError, match=r"viz\.graph draws a Tensor"):
            viz.graph(nothing)
    with pytest.raises(TypeError, match=r"there is nothing to draw in \[\]"):
        viz.graph([])
    x = tx.ones(2, requires_grad=True)
    y = x.exp()
    total = y.sum()
    total.backward()
    for released in (total, y, (y * 2).sum()):
        with pytest.raises(tx.errors.GradError, match="before backward"):
            viz.graph(released)


def test_importing_viz_loads_no_matplotlib() -> None:
    code = "import sys, tinygrad_tx.viz; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
