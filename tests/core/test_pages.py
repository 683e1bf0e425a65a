"""pages: HTML that holds its own data, whatever text that is."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from tinygrad_tx import pages
from tinygrad_tx.errors import UserError

NASTY = "</script><script>alert(1)</script> <!-- ' \" & \u2028 \u2029 \\ ünï"


def held(html: str) -> object:
    """The data in a page, as a browser reads it."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert match
    return json.loads(match[1])


def test_data_comes_back_whatever_it_says() -> None:
    data = {"text": NASTY, "numbers": [1, 2.5, None, True], NASTY: (1, 2)}
    html = pages.page(NASTY, [], data)
    assert held(html) == {"text": NASTY, "numbers": [1, 2.5, None, True], NASTY: [1, 2]}
    assert "<script>alert" not in html
    assert html.count("</script>") == html.count("<script")


def test_what_is_no_number_is_null() -> None:
    assert held(pages.page("", [], [math.nan, math.inf, -math.inf, 1.0])) == [None, None, None, 1.0]


def test_a_page_needs_nothing_else() -> None:
    html = pages.page("title", ["page.js"], 0)
    assert not re.search(
        r"""(?:src|href)=["'](?!data:)|https?://(?!www\.w3\.org)|@import|url\(""", html
    )


def test_a_page_of_files_that_are_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        pages.page("title", ["nothing.js"], 0)


def test_scripts_never_make_html_of_text() -> None:
    """Nor run any."""
    for file in (Path(pages.__file__).parent / "viz").glob("*.js"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text
        )
        assert not re.search(r"\bfetch\(|XMLHttpRequest|\bimport\(|</script", text)


def test_a_page_is_no_picture(tmp_path: Path) -> None:
    """A name that says otherwise is refused before anything is written."""
    for name in ("step.pdf", "step.SVG", "step.json"):
        with pytest.raises(UserError, match=r"choose a name that ends in \.html"):
            pages.save(tmp_path / name, "text")
    assert not list(tmp_path.iterdir())
    for name in ("step.html", "step.htm", "step"):
        assert pages.save(tmp_path / name, "text").read_text() == "text"
