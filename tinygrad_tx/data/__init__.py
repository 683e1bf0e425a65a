"""Text in, batches out: corpora, tokenizers and batches.

Read sentence pairs from files (`read_pairs`, `read_tsv`) or from the built-in grammar
(`grammar.pairs`), train or load a `Tokenizer`, make a `Dataset` of both and iterate over `Batches`.
Of anything else, `TensorDataset` and `DataLoader` make shuffled batches.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily
from ..tokenizer import Tokenizer
from .batches import Batch, Batches, Shape, by_length
from .builtin import grammar
from .dataset import Dataset
from .files import read_lines, read_pairs, read_tsv
from .loader import DataLoader, TensorDataset

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Batch",
    "Batches",
    "DataLoader",
    "Dataset",
    "Shape",
    "TensorDataset",
    "Tokenizer",
    "by_length",
    "grammar",
    "read_lines",
    "read_pairs",
    "read_tsv",
]
