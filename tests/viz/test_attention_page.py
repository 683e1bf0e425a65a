"""attention.js: the page of attention, in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from browser import NARROW, WIDE, browser, complaints, dark, opened, overflow

from tinygrad_tx.viz import Attention
from tinygrad_tx.viz.heads import Heads

WORDS = ("<s>", "der", "<b>Hund</b>", "שלום", "Donaudampfschifffahrtsgesellschaftskapitänsmütze")


def test_hover_choices_themes_and_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    titles = tuple(f"head {i}" for i in (1, 2, 3))
    layers = []
    for name in ("encoder.layers.0.self_attn", "decoder.layers.0.cross_attn"):
        weights = rng.dirichlet(np.ones(5) * 0.3, (3, 5)).astype(np.float32)
        layers.append(Heads(name, weights, WORDS, WORDS, titles))
    path = Attention(layers).save(tmp_path / "page.html")
    with browser(WIDE) as driver:
        opened(driver, path)
        run = driver.execute_script
        assert run("return document.querySelectorAll('b, i').length") == 0  # text is text
        assert run("return document.querySelectorAll('canvas').length") == 3
        # Hovering over the cell of row 2, column 1 of the first head.
        run(
            "const c = document.querySelector('canvas'), r = c.getBoundingClientRect();"
            "const left = c.clientWidth - 1 - 5 * 16;"
            "c.dispatchEvent(new PointerEvent('pointermove', {bubbles: true,"
            "clientX: r.left + left + 24, clientY: r.top + 40}))"
        )
        says = run("return [tip.hidden, tip.textContent]")
        weight = float(layers[0].weights[0, 2, 1])
        exact = f"{100 * weight:.{1 if weight < 0.1 else 0}f}%"
        assert says == [False, f"<b>Hund</b> → der: {exact}"]
        # A token that is hovered shades what it looks at.
        token = driver.find_elements("css selector", "#looks .token")[2]
        run("arguments[0].dispatchEvent(new PointerEvent('pointerenter'))", token)
        weight_of = "t => Number(t.style.getPropertyValue('--weight'))"
        shade = f"return [...document.querySelectorAll('#looked .token')].map({weight_of})"
        np.testing.assert_allclose(run(shade), 0.75 * layers[0].weights.mean(0)[2], atol=2e-3)
        for select, value in (("layer", "1"), ("head", "mean")):
            run(
                f"const s = document.getElementById('{select}'); s.value = '{value}';"
                "s.dispatchEvent(new Event('change'))"
            )
        assert run("return document.querySelector('h2').textContent") == layers[1].name
        assert run("return document.querySelectorAll('canvas').length") == 1
        driver.find_element("id", "arcs").click()
        n_lines = int((layers[1].weights.mean(0) >= 0.02).sum())
        assert run("return document.querySelectorAll('.panels svg line').length") == n_lines
        driver.save_screenshot(str(tmp_path / "wide.png"))
        assert overflow(driver) == 0 and not complaints(driver)
    with browser(NARROW) as driver:
        opened(driver, path)
        dark(driver)
        driver.save_screenshot(str(tmp_path / "narrow.png"))
        assert overflow(driver) == 0 and not complaints(driver)
