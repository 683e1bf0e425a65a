"""The Hugging Face formats by `model_type`, as transformers 4 and 5 write them. A file for each:
another architecture is a file, and its entry here. Used by pretrained.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .base import Format as Format
from .base import Settings as Settings
from .bert import BERT_FORMAT, ROBERTA_FORMAT
from .gpt2 import GPT2
from .llama import LLAMA
from .marian import MARIAN
from .t5 import T5_FORMAT

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "gpt2": GPT2,
        "llama": LLAMA,
        "bert": BERT_FORMAT,
        "roberta": ROBERTA_FORMAT,
        "xlm-roberta": ROBERTA_FORMAT,
        "camembert": ROBERTA_FORMAT,
        "t5": T5_FORMAT,
        "marian": MARIAN,
    }
)
