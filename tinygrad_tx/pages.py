"""Pages: self-contained HTML files, which need no network and no server.

In: a title, the scripts and styles of viz/ that a page uses, and its data. Out: HTML. A script
finds the data by `data()` (page.js). Called by whatever shows itself in a browser: the explorer of
a compiled function, the report of a run, attention.

Data is JSON inside the page, in which no text can end the element or begin another one. Scripts put
it on the page as text, never as HTML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .atomic import write_bytes
from .errors import UserError

_FILES = Path(__file__).parent / "viz"
_SHARED = ("page.css", "page.js")
_OTHERS = (".svg", ".png", ".pdf", ".dot", ".json")  # what else can be drawn or told
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(title: str, files: Sequence[str], data: Any, lang: str = "en") -> str:
    """The text of a page. files: names of .css and .js files of viz/, in their order. data: of
    numbers, texts, lists and mappings; what is infinite or no number becomes null."""
    styles: list[str] = []
    scripts: list[str] = []
    for name in (*_SHARED, *files):
        text = (_FILES / name).read_text(encoding="utf-8")
        (styles if name.endswith(".css") else scripts).append(text)
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="{escape(lang)}"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            *(f"<style>\n{text}</style>" for text in styles),
            "</head><body>",
            "<noscript>This page is drawn by its own script, and scripts are switched off."
            "</noscript>",
            f'<script type="application/json" id="data">{as_json(data)}</script>',
            *(f"<script>\n{text}</script>" for text in scripts),
            "</body></html>",
            "",
        ]
    )


def save(path: str | Path, text: str) -> Path:
    """Write a page, whole or not at all; gives path back. UserError for a name that says it is
    something else, before anything is written."""
    path = Path(path)
    if path.suffix.lower() in _OTHERS:
        raise UserError(f"{path} is to be a page for a browser: choose a name that ends in .html")
    write_bytes(path, text.encode(errors="replace"))
    return path


def as_json(data: Any) -> str:
    """JSON that can stand inside a <script> element."""
    text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)


def _finite(data: Any) -> Any:
    """JSON has no number for what is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
