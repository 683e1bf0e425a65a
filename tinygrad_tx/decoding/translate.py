"""Lines of text translated: batched by length, in their order again.

In: lines, with a Transformer and its tokenizer. Out: for each line its best translation
(`translate`), or the n best with their scores (`Translator`). Called by validation, by the command
line, and by users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from ..data import by_length
from ..errors import UserError
from .generate import generate
from .loop import Model

_TYPICAL = 64  # tokens of source and output together that batch_size reckons with


class Translation(NamedTuple):
    """One translation, a single line, and its score (see Hypothesis)."""

    text: str
    score: float


@dataclass(frozen=True)
class Translator:
    """A model, its tokenizer, and how to search; see generate for what is not said here.

    max_extra_tokens: a translation has at most as many tokens as its source and these.
    batch_size: how many sentences are translated at once; of long ones fewer, of short ones more.
    observe: is told of each line that is translated, its number, the tokens of its source, and
        those of its best translation, as soon as they are known, not in the order of lines.
    """

    model: Model
    tokenizer: Any
    beam_size: int = 4
    length_penalty: float = 0.6
    max_extra_tokens: int = 50
    batch_size: int = 32
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    observe: Callable[[int, list[int], list[int]], None] | None = None

    def n_best(
        self,
        lines: Sequence[str],
        progress: Callable[[int], None] | None = None,
        first_line: int = 1,
    ) -> list[list[Translation]]:
        """The num_return_sequences best translations of each line, best first; a blank line's only
        one is blank.

        progress: is told, after each batch, how many lines it was. first_line: the number of
        lines[0] in messages. Raises UserError for a line longer than the model was made for.
        """
        lines = _lines("Translator.n_best", lines)
        for name, value, what, duty in (
            ("model", self.model, "Transformer", "padding_side"),
            ("tokenizer", self.tokenizer, "Tokenizer", "encode_batch"),
        ):
            if not hasattr(value, duty):
                kind = type(value).__name__
                raise TypeError(f"translate: {name} must be a {what}, not a {kind}")
        found = [[Translation("", 0.0)] for _ in lines]
        full = [i for i, line in enumerate(lines) if line.strip()]
        sources = self.tokenizer.encode_batch([lines[i] for i in full], special=True)
        limits = []
        for i, source in zip(full, sources, strict=True):
            limits.append(self._limit(len(source), i + first_line))
        if progress is not None and len(full) < len(lines):
            progress(len(lines) - len(full))
        for batch in by_length(limits, self.batch_size * _TYPICAL):
            hypotheses = generate(
                self.model,
                [sources[i] for i in batch],
                beam_size=1 if self.do_sample else self.beam_size,
                max_new_tokens=[limits[i] for i in batch],
                length_penalty=self.length_penalty,
                num_return_sequences=self.num_return_sequences,
                do_sample=self.do_sample,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
            )
            for i, row in zip(batch, hypotheses, strict=True):
                found[full[i]] = [Translation(self._line(h.tokens), h.score) for h in row]
                if self.observe is not None:
                    self.observe(full[i] + first_line, list(sources[i]), list(row[0].tokens))
            if progress is not None:
                progress(len(batch))
        return found

    def stream(self, lines: Iterable[str], chunk_size: int = 256) -> Iterator[list[Translation]]:
        """n_best of each line, in order, as the lines come: chunk_size of them are read and
        translated at a time."""
        if isinstance(lines, str):  # its letters would be lines
            _lines("Translator.stream", lines)
        source, first = iter(lines), 1
        while chunk := list(islice(source, chunk_size)):
            yield from self.n_best(chunk, first_line=first)
            first += len(chunk)

    def _limit(self, length: int, line: int) -> int:
        """The most new tokens for a source of that many, end token and all."""
        longest = self.model.config.max_len
        if length > longest:
            raise UserError(
                f"line {line} has {length} tokens, of which the model takes {longest}; "
                "put its sentences on lines of their own"
            )
        room = self.model.room(length)
        wanted = length + self.max_extra_tokens
        return wanted if room is None else min(wanted, room)

    def _line(self, tokens: Sequence[int]) -> str:
        """The text of tokens. Whatever the model says, it is one line."""
        return " ".join(self.tokenizer.decode(tokens).splitlines())


def _lines(name: str, lines: Any) -> list[str]:
    """Lines as a list; TypeError where they are none."""
    if isinstance(lines, str) or not isinstance(lines, Iterable):
        what = "one str: write [text]" if isinstance(lines, str) else f"a {type(lines).__name__}"
        raise TypeError(f"{name}: lines must be a list of str, not {what}")
    found = list(lines)
    for i, line in enumerate(found):
        if not isinstance(line, str):
            raise TypeError(f"{name}: lines[{i}] must be a str, not a {type(line).__name__}")
    return found


def translate(
    model: Model,
    tokenizer: Any,
    lines: Sequence[str],
    *,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    max_extra_tokens: int = 50,
    batch_size: int = 32,
) -> list[str]:
    """The best translation of each line; see Translator, which also samples and gives n best."""
    lines = _lines("translate", lines)
    translator = Translator(
        model, tokenizer, beam_size, length_penalty, max_extra_tokens, batch_size
    )
    return [best[0].text for best in translator.n_best(lines)]
