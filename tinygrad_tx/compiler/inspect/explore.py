"""explore: the description of a recorded call as one self-contained page.

In: the data of describe.py. Out: HTML, which viz/explorer.js draws. Called by
`compiled.explore(path)`.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from ... import pages

FILES = ("explorer.css", "explorer.js")


def save(described: dict[str, Any], path: str | Path) -> Path:
    """Write the page, and give its path back. What takes most room is packed: the code of kernels,
    which the page unpacks when it is asked for, and all else."""
    code = [source["code"] for source in described["kernels"]["sources"]]
    sources = [{**s, "code": len(s["code"])} for s in described["kernels"]["sources"]]
    kernels = {**described["kernels"], "sources": sources}
    data = {"plan": packed({**described, "kernels": kernels}), "code": packed(code)}
    text = pages.page(f"{described['name']}: tinygrad_tx explorer", FILES, data)
    return pages.save(path, text)


def packed(data: Any) -> str:
    """JSON, as zlib and base64 make it small."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return b64encode(zlib.compress(text.encode(), 9)).decode()
