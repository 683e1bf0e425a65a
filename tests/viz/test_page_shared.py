"""page.js: what all pages share, in a browser."""

from __future__ import annotations

from pathlib import Path

from browser import browser, complaints, dark, opened

from tinygrad_tx import pages


def test_elements_numbers_tips_and_themes(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(pages.page("a <b> page", [], {"text": "<i>x</i>"}), encoding="utf-8")
    with browser() as driver:
        opened(driver, path)
        run = driver.execute_script
        assert driver.title == "a <b> page"
        note = "el('p.note', {id: 'p', 'data-tip': data().text, tabindex: 0}, data().text)"
        run(f"document.body.append({note}, themeButton())")
        assert driver.find_element("id", "p").text == "<i>x</i>"
        numbers = "[short(1234567), short(12, 'B'), short(0), short(null), short(999.6)]"
        assert run(f"return {numbers}") == ["1.23M", "12 B", "0", "", "1000"]
        times = "[seconds(2), seconds(0.0123), seconds(4.2e-5)]"
        assert run(f"return {times}") == ["2 s", "12.3 ms", "42 us"]
        colour = "return getComputedStyle(document.body).backgroundColor"
        assert run(colour) == "rgb(255, 255, 255)"
        button = driver.find_element("id", "theme")
        assert button.text == "dark"  # where a click leads
        dark(driver)
        assert run(colour) == "rgb(21, 24, 28)" and button.text == "light"
        button.click()
        assert run(colour) == "rgb(255, 255, 255)" and button.text == "dark"
        where = "{bubbles: true, clientX: 5, clientY: 5}"
        move = f"new PointerEvent('pointermove', {where})"
        run(f"document.getElementById('p').dispatchEvent({move})")
        assert run("return [tip.hidden, tip.textContent]") == [False, "<i>x</i>"]
        assert not complaints(driver)
