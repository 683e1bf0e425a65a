"""Text in, batches out: corpora, tokenizers and batches.

Read sentence pairs from files (`read_pairs`, `read_tsv`) or from the built-in grammar
(`grammar.pairs`), train or load a `Tokenizer`, make a `Dataset` of both and iterate over `Batches`.
"""

from tinygrad_tx.data.batches import Batch, Batches, Shape, by_length
from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.data.dataset import Dataset
from tinygrad_tx.data.files import read_lines, read_pairs, read_tsv
from tinygrad_tx.tokenizer import Tokenizer

__all__ = [
    "Batch",
    "Batches",
    "Dataset",
    "Shape",
    "Tokenizer",
    "by_length",
    "grammar",
    "read_lines",
    "read_pairs",
    "read_tsv",
]
