"""Compiled functions that the explorer is tried on, each of which has run a few times; and pictures
of their pages.

    python tests/helpers/explorer_cases.py docs/pictures     the pictures of docs/explorer.md
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinygrad_tx as tx
from tinygrad_tx import nn, optim
from tinygrad_tx.compiler.compiled import Compiled
from tinygrad_tx.training.works import begin, work


def mlp() -> Compiled:
    model = nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, 1))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    @tx.compile
    def train_step(x: tx.Tensor, wanted: tx.Tensor) -> tx.Tensor:
        loss = ((model(x) - wanted) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return called(train_step, tx.ones(8, 2), tx.ones(8, 1))


def training(name: str) -> Compiled:
    """A step of a work: a Transformer with one encoder and one decoder layer, or a GPT."""
    table = dict(work(name))
    _, step = begin(table)
    count = 2 if table["kind"] == "gpt" else 3
    ids = [
        tx.tensor(
            [[(i * j) % 30 + 3 for i in range(table["length"])] for j in range(table["batch"])]
        )
        for _ in range(count)
    ]
    return called(tx.compile(step), *ids)


def scan() -> Compiled:
    """A recurrence, its gradient, and no module."""
    weight = tx.ones(4, 4, requires_grad=True)

    @tx.compile
    def loss(xs: tx.Tensor) -> tx.Tensor:
        last, ys = tx.scan(lambda h, x: ((h @ weight + x).tanh(),) * 2, tx.zeros(3, 4), xs)
        total = (ys * ys).mean() + last.sum()
        total.backward()
        return total

    return called(loss, tx.ones(6, 3, 4))


def called(f: Compiled, *args: tx.Tensor) -> Compiled:
    for _ in range(3):
        f(*args)
    return f


CASES: dict[str, Callable[[], Compiled]] = {
    "mlp": mlp,
    "transformer": lambda: training("tiny"),
    "gpt": lambda: training("tiny-gpt2"),
    "scan": scan,
}


def waited(driver: Any, path: Path) -> Any:
    """The driver, on a page that has drawn itself."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get("about:blank")
    driver.get(path.resolve().as_uri())
    WebDriverWait(driver, 20).until(
        lambda d: d.execute_script("return document.body.dataset.ready") == "yes"
    )
    return driver


def undisturbed(name: str) -> Compiled:
    """A step of a work, the quickest of some: one in which nobody else had the processor."""
    steps = [training(name) for _ in range(8)]
    return min(steps, key=lambda step: float(step.describe()["totals"]["seconds"]))


def pictures(folder: Path) -> None:
    """A view a picture: of a step that trains W1, a Transformer of two and two layers; the graph,
    of a GPT of one."""
    from browser import browser, dark

    with tempfile.TemporaryDirectory() as directory, browser((1200, 720)) as driver:
        tx.manual_seed(0)
        step = undisturbed("W1").explore(Path(directory) / "step.html")
        gpt = training("tiny-gpt2").explore(Path(directory) / "gpt.html")
        for view in ("modules", "graph", "kernels", "memory"):
            dark(driver, view == "kernels")
            waited(driver, gpt if view == "graph" else step)
            driver.execute_script(f"go('{view}')")
            if view == "kernels":
                driver.execute_script(
                    "document.querySelector('#kernels tbody tr:nth-child(4)').click()"
                )
            driver.execute_script("window.scrollTo(0, 0)")
            driver.save_screenshot(str(folder / f"explorer_{view}.png"))


if __name__ == "__main__":
    pictures(Path(sys.argv[1]))
