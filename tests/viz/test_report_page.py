"""The report of a run in a browser: curves, samples over time, attention; text stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser import NARROW, browser, complaints, dark, opened, overflow

from tinygrad_tx import pages

EVIL = "<img src=x onerror=\"console.error('no')\"></script>&"


def sample(output: str, **more: Any) -> dict[str, Any]:
    return {"source": EVIL, "reference": "una casa", "output": output, "chrf": 12.5, **more}


def validation(step: int) -> dict[str, Any]:
    layers = {
        "decoder.layers.0.cross_attn": [[100, 0], [25, 75]],
        "decoder.layers.1.cross_attn": [[1, 99], [50, 50]],
    }
    attention = {"queries": ["<s>", EVIL], "keys": ["a", "house"], "layers": layers}
    return {
        "step": step,
        "samples": [sample(f"said at {step}", attention=attention), sample("x")],
        "best": [sample("good")],
        "worst": [sample("bad" * 60)],
    }


def curve(name: str, points: list[tuple[int, float]], style: str = "line") -> dict[str, Any]:
    return {"name": name, "style": style, "points": points}


DATA = {
    "name": EVIL,
    "status": "at step 20 of 40",
    "facts": [("data", EVIL * 4)],
    "panels": [
        {
            "title": "loss",
            "curves": [
                curve("training", [(i, 5.0 - i / 10) for i in range(1, 21)]),
                curve("validation", [(10, 4.5), (20, 3.5)], "marked"),
            ],
        },
        {"title": "one point", "curves": [curve("alone", [(5, 0.0)], "marked")]},
        {"title": "small", "curves": [curve("rate", [(1, 1e-7), (20, 3e-7)])]},
    ],
    "validations": [validation(10), validation(20)],
    "sittings": [
        {"step": 0, "date": "d", "command": EVIL, "parameters": 1234, "machine": {}, "versions": {}}
    ],
    "config": f"[data]\nsrc = '{EVIL}'",
    "notes": [f"metrics.jsonl: {EVIL}"],
}


def test_the_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    files = ["report.css", "report.js"]
    path.write_text(pages.page("a run", files, DATA), encoding="utf-8")
    with browser() as driver:
        opened(driver, path)
        run = driver.execute_script

        def text(selector: str) -> str:
            return str(run(f"return document.querySelector('{selector}').textContent"))

        assert text("h1") == EVIL and text("#config").endswith(f"src = '{EVIL}'")
        assert text(".note") == f"metrics.jsonl: {EVIL}" and EVIL in text(".facts dd")
        assert not run("return document.images.length")
        assert run("return document.querySelectorAll('.chart').length") == 3
        # Curves: the last point's values, then those of the place that keys or the pointer choose.
        assert text(".legend") == "step 20training 3validation 3.5"
        run("document.querySelector('.chart svg').focus()")
        driver.switch_to.active_element.send_keys("\ue012")  # the left arrow
        assert text(".legend") == "step 19training 3.1validation 3.5 (step 20)"
        move = (
            "const s = document.querySelector('.chart svg'), b = s.getBoundingClientRect();"
            "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width * PLACE, "
            "clientY: b.top + 9}))"
        )
        run(move.replace("PLACE", "0.14"))
        assert text(".legend").startswith("step 1training 4.9")
        # Samples, after another validation.
        assert text(".output") == "said at 20  chrF 12.5"
        assert run("return document.querySelectorAll('.sample:first-child .texts tr').length") == 2
        slide = "const s = document.getElementById('validation'); s.value = 0;"
        run(f"{slide} s.dispatchEvent(new Event('input'))")
        assert text(".output") == "said at 10  chrF 12.5" and "step 10" in text(".controls")
        # Attention: the last layer first, and another one.
        tips = "return [...document.querySelectorAll('.map rect')].map((r) => r.dataset.tip)"
        assert run(tips)[0] == "<s> → a: 1%" and len(run(tips)) == 4
        choose = "const c = document.querySelector('.attention select'); c.selectedIndex = 0;"
        run(f"{choose} c.dispatchEvent(new Event('change'))")
        assert run(tips)[3] == f"{EVIL} → house: 75%"
        assert "Worst of this validation" in text("#samples") and "1,234" in text("main")
        assert not complaints(driver) and not overflow(driver)
        dark(driver)
        colour = "return getComputedStyle(document.querySelector('.chart')).backgroundColor"
        assert run(colour) == "rgb(30, 35, 41)"
        none: dict[str, Any] = {name: [] for name in ("panels", "validations", "sittings", "notes")}
        path.write_text(pages.page("empty", files, {**DATA, **none}), encoding="utf-8")
        opened(driver, path)
        assert "No step has been written down yet." in text("main")
        assert not complaints(driver)


def test_the_page_on_a_telephone(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(pages.page("a run", ["report.css", "report.js"], DATA), encoding="utf-8")
    with browser(NARROW) as driver:
        opened(driver, path)
        run = driver.execute_script
        run("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert not overflow(driver) and not complaints(driver)
        width = "return document.querySelector('.chart svg').getBoundingClientRect().width"
        assert 330 < run(width) < 390
