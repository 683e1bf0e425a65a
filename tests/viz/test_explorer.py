"""explorer.js in a browser: its views, the links between them, search and keys. Each page may
complain of nothing, and none is wider than its window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NARROW, WIDE, browser, complaints, dark, overflow
from explorer_cases import CASES, called, waited

import tinygrad_tx as tx

VIEWS = ("modules", "graph", "kernels", "memory")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: case().explore(folder / f"{name}.html") for name, case in CASES.items()}


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser(WIDE) as found:
        yield found


class Page:
    """A page in a browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = waited(driver, path)
        complaints(driver)  # those of the page before

    def script(self, text: str) -> Any:
        return self.driver.execute_script(text)

    def all(self, selector: str, text: str = "") -> list[Any]:
        """The elements that are seen, and have a text in them; of many, one question."""
        seen = (
            "return [...document.querySelectorAll(arguments[0])].filter("
            "x => x.getClientRects().length && x.textContent.includes(arguments[1]))"
        )
        return list(self.driver.execute_script(seen, selector, text))

    def one(self, selector: str, text: str = "") -> Any:
        return self.all(selector, text)[0]

    def texts(self, selector: str) -> list[str]:
        seen = (
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(x => x.getClientRects().length).map(x => x.textContent)"
        )
        return list(self.driver.execute_script(seen, selector))

    def view(self, name: str) -> None:
        self.one(f"#tab-{name}").click()

    @property
    def chosen(self) -> str:
        """The part of the address that says what is shown and selected."""
        return str(self.script("return location.hash"))

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def wait(self, condition: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 10).until(lambda d: d.execute_script(f"return {condition}"))


@pytest.mark.parametrize(
    "name", [n if n != "gpt" else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_all_views_of_all_pages(driver: Any, pages: dict[str, Path], name: str) -> None:
    page = Page(driver, pages[name])
    for i, view in enumerate(VIEWS):
        dark(driver, bool(i % 2))
        page.view(view)
        assert [x.get_attribute("id") for x in page.all("[role=tabpanel]")] == [view]
        assert overflow(driver) == 0
    page.view("graph")
    for stage in range(len(page.all("#stage option"))):
        page.script(f"document.getElementById('stage').value = {stage}")
        page.script("document.getElementById('stage').dispatchEvent(new Event('change'))")
        assert 0 < len(page.all("#graph .box")) < 400
    assert not complaints(driver)


def test_links_between_views(driver: Any, pages: dict[str, Path]) -> None:
    page = Page(driver, pages["transformer"])
    page.view("kernels")
    rows = page.all("#kernels tbody tr")  # the one that takes longest is often of no layer
    next(row for row in rows if "ffn" in row.text).click()
    assert "loop nest" in page.one("#details").text
    assert page.one("#details .line pre").text
    assert not page.all("#details details pre")
    page.one("#details summary").click()
    page.wait("document.querySelector('#details details pre').textContent.includes('define')")
    page.one("#details .jump", "show in graph").click()
    page.wait("document.querySelectorAll('#graph .box.marked').length")
    page.one("#details .jump", "show in memory").click()
    page.wait("document.querySelectorAll('#memory .buffer.marked').length")
    page.one("#details .jump", "show in modules").click()
    assert len(page.all("#modules tr.marked")) == 1
    page.one("#modules tr.marked").click()
    page.one("#details .jump", "in the graph").click()
    page.wait("document.querySelectorAll('#graph .box.module.marked').length")
    page.one("#details .jump", "its kernels").click()
    marked = page.all("#kernels tr.marked")
    assert marked and len(marked) < len(page.all("#kernels tbody tr"))
    page.driver.back()
    assert page.one("#tab-graph").get_attribute("aria-selected") == "true"
    assert not complaints(driver)


def test_a_whole_model_and_what_is_in_none_are_found_in_the_graph(
    driver: Any, pages: dict[str, Path]
) -> None:
    page = Page(driver, pages["mlp"])
    for path, kind in (("Sequential", "module"), ("", "line")):
        number = page.script(f"return P.moduleOf.get({path!r})")
        page.script(f"go('modules', 'module', {number})")
        page.wait("document.querySelector('#modules tr.marked')")
        page.one("#details .jump", "in the graph").click()
        page.wait(f"document.querySelectorAll('#graph .box.{kind}.marked').length")
    marked = page.texts("#graph .box.marked")
    assert not [text for text in marked if "Linear" in text or "gelu" in text]
    assert not complaints(driver)


def test_the_graph_opens_and_closes(driver: Any, pages: dict[str, Path]) -> None:
    page = Page(driver, pages["mlp"])
    page.view("graph")
    gelu = page.script(
        "return [...document.querySelectorAll('.box .title')].map(x => x.textContent)"
    )
    assert "gelu" in gelu
    count = len(page.all("#graph .box"))
    page.one("#graph button", "close all").click()
    closed = page.all("#graph .box")
    assert len(closed) < count
    whole = page.one("#graph .box.module:not(.frame)")
    whole.click()
    assert len(page.all("#graph .box")) > len(closed)
    page.script("document.querySelector('#graph .box.module.frame .head').parentNode.dispatchEvent("
                "new MouseEvent('click', {bubbles: true}))")  # fmt: skip
    assert len(page.all("#graph .box")) == len(closed)
    page.one("#graph button", "reset").click()
    assert len(page.all("#graph .box")) == count
    width = "return document.querySelector('#graph svg').getBoundingClientRect().width"
    before = page.script(width)
    page.one("#graph button", "+").click()
    assert page.script(width) > before
    page.one("#graph .box.node").click()
    assert "/node/" in page.chosen and "computed by" in page.one("#details").text
    assert not complaints(driver)


def test_search_and_keys(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(driver, pages["transformer"])
    page.press("/", "cross_attn")
    options = page.texts("#hits [role=option]")
    assert options and all("cross_attn" in text for text in options[:5])
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    assert page.chosen == "#/modules/module/" + page.chosen.rpartition("/")[2]
    assert "cross_attn" in page.one("#details h2").text
    page.press(Keys.ESCAPE, Keys.ESCAPE)
    assert not page.all("#details")
    page.press("3")
    assert page.one("#tab-kernels").get_attribute("aria-selected") == "true"
    page.one("#tab-kernels").send_keys(Keys.ARROW_RIGHT)
    assert page.driver.switch_to.active_element.get_attribute("id") == "tab-memory"
    page.press("1")
    page.script("document.querySelector('#modules tbody tr').focus()")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    assert page.driver.switch_to.active_element.get_attribute("aria-expanded") == "false"
    few = len(page.all("#modules tbody tr"))
    page.press(Keys.ARROW_RIGHT)
    assert len(page.all("#modules tbody tr")) > few
    page.view("kernels")
    rows = len(page.all("#kernels tbody tr"))
    page.press("/", "attention_grad")
    assert 0 < len(page.all("#kernels tbody tr")) < rows
    page.press(Keys.ESCAPE)
    assert len(page.all("#kernels tbody tr")) == rows
    page.one("#kernels .kind", "rows").click()
    assert "rows" not in page.texts("#kernels tbody td:nth-child(3)")
    page.view("graph")
    page.script("document.querySelector('#graph .box').focus()")
    page.press(Keys.ARROW_DOWN)
    first = page.driver.switch_to.active_element.get_attribute("data-key")
    page.press(Keys.ARROW_DOWN)
    assert page.driver.switch_to.active_element.get_attribute("data-key") != first
    assert not complaints(driver)


def test_kernels_are_sorted_by_time_and_by_what_is_asked(
    driver: Any, pages: dict[str, Path]
) -> None:
    page = Page(driver, pages["gpt"])
    page.view("kernels")
    order = "return [...document.querySelectorAll('#kernels tbody tr')].map(r => +r.dataset.id)"
    times = page.script("return P.kernels.calls.map(k => k.seconds || 0)")
    shown = [times[i] for i in page.script(order)]
    assert shown == sorted(times, reverse=True)
    page.one("#kernels th button", "bytes").click()
    sizes = page.script("return P.kernels.calls.map(k => k.bytes)")
    assert [sizes[i] for i in page.script(order)] == sorted(sizes, reverse=True)


def test_hover_names_the_line(driver: Any, pages: dict[str, Path]) -> None:
    page = Page(driver, pages["mlp"])
    page.view("memory")
    page.script(
        "document.querySelector('#memory .buffer').dispatchEvent(new PointerEvent("
        "'pointermove', {bubbles: true, clientX: 300, clientY: 300}))"
    )
    tip = page.one(".tip").text
    assert "explorer_cases.py:" in tip and "B, float32" in tip and "waves" in tip
    tips = page.script(
        "return [...document.querySelectorAll('[data-tip]')].map(x => x.dataset.tip)"
    )
    assert any("loss = ((model(x) - wanted) ** 2).mean()" in x for x in tips)


def test_text_from_data_is_text(driver: Any, tmp_path: Path) -> None:
    """Names that would be elements, where they were put on the page as HTML."""

    def f(x: Any) -> tx.Tensor:
        return x["<img src=x onerror=boom()>"].exp() + 1

    f.__qualname__ = f.__name__ = "</script><script>boom()</script>"
    compiled = called(tx.compile(f), {"<img src=x onerror=boom()>": tx.ones(3)})  # type: ignore[arg-type]
    page = Page(driver, compiled.explore(tmp_path / "f.html"))
    for view in VIEWS:
        page.view(view)
    assert page.one("h1").text == "</script><script>boom()</script>"
    assert "<img" in page.one("#memory table").text
    assert not page.all("img") and not complaints(driver)


def test_narrow_and_op_by_op(
    driver: Any, pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TX_COMPILE", "replay")
    replayed = CASES["mlp"]().explore(tmp_path / "replayed.html")
    resized(driver, NARROW)
    for path in (pages["transformer"], replayed):
        page = Page(driver, path)
        for view in VIEWS:
            page.view(view)
            assert overflow(driver) == 0
        page.one("#memory .buffer").click()
        assert "/buffer/" in page.chosen and page.all("#details")
        assert overflow(driver) == 0
        assert not complaints(driver)
    resized(driver, WIDE)


def resized(driver: Any, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
