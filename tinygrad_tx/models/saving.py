"""Savable: a model that can be written as a directory that others read. The base of the models that
have such a format, or may have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import nn


class Savable(nn.Module):
    """config: what it was made from."""

    config: Any

    def save_pretrained(self, path: Path | str, tokenizer: Any = None) -> None:
        """Write a Hugging Face directory: config.json, model.safetensors and, with a tokenizer,
        tokenizer.json; models.from_pretrained reads it, and so does transformers. UserError for a
        configuration that has no such format."""
        from .pretrained import save_pretrained  # it knows all models

        save_pretrained(self, path, tokenizer)
