"""What a model's heads look at, as a picture: of one run, for some or all of its layers.

In: a model with one sentence, as text or as token ids. Out: an `Attention`, which is saved as .svg,
.html, .png or .pdf, or shown by a notebook. Called by users, by `tinygrad-tx attention` and by
`tinygrad-tx translate --attention`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import nn, pages
from ..decoding import generate
from ..errors import UserError
from ..models.encoder_decoder import EncoderDecoder
from ..tensor import Tensor
from .heads import Heads, Weights, arcs, is_special, maps
from .rollout import rollouts
from .scene import Scene
from .shown import Shown
from .weights import attention_maps

_MORE = 50  # tokens by which a translation may be longer than its source
_LISTED = 8  # layers that an error names


class Attention(Shown):
    """The attention of a run. layers: what is drawn; `choose` gives another choice of them."""

    forms: ClassVar[tuple[str, ...]] = (".svg", ".html", ".png", ".pdf")

    def __init__(
        self,
        layers: Sequence[Heads],
        *,
        as_arcs: bool = False,
        whole: Sequence[Heads] | None = None,
    ) -> None:
        """layers: what is drawn, of `whole`, all layers of the run; by default all of them."""
        self.layers, self.as_arcs = tuple(layers), as_arcs
        self._whole = self.layers if whole is None else tuple(whole)
        if not self.layers:
            raise UserError("there is no attention to draw")

    def choose(
        self,
        *,
        layer: int | str | None = None,
        head: int | None = None,
        mean: bool = False,
        rollout: bool = False,
        arcs: bool = False,
    ) -> Attention:
        """Another picture of the same run.

        layer: a part of the names of layers: 1, "cross_attn", "decoder.layers.1"; None: all.
        head: its number, from 1 on. mean: of the heads of each layer. rollout: how much of each
            token of the input has come to each position (Abnar and Zuidema, arXiv 2005.00928),
            after all layers or, with `layer`, after those of that name.
        arcs: lines between two columns of tokens instead of maps.

        UserError for a layer or a head that there is not, and for two of head, mean and rollout.
        """
        named = {"head": head is not None, "mean": mean, "rollout": rollout}
        both = [name for name, given in named.items() if given]
        if len(both) > 1:
            raise UserError(f"{both[0]} and {both[1]} exclude each other")
        found: Sequence[Heads] = self._whole
        if rollout:
            found = rollouts(found)
            if layer is None:  # of each kind the last one has come through all layers
                last = {heads.role: i for i, heads in enumerate(found)}
                found = [found[i] for i in sorted(last.values())]
        if layer is not None:
            found = _called(found, layer)
        if mean:
            found = [
                h._replace(weights=h.weights.mean(0)[None], titles=(f"mean of {len(h.weights)}",))
                for h in found
            ]
        if head is not None:
            found = [_head(heads, head) for heads in found]
        return Attention(found, as_arcs=arcs, whole=self._whole)

    def scene(self) -> Scene:
        return (arcs if self.as_arcs else maps)(self.layers, self._title())

    def render(self, form: str) -> bytes:
        return self.html.encode() if form == "html" else super().render(form)

    @property
    def html(self) -> str:
        """A page that needs no network: hovering tells weights; layer, head, maps or arcs are
        chosen there."""
        layers = [
            {
                "name": heads.name,
                "titles": heads.titles,
                "queries": heads.queries,
                "keys": heads.keys,
                "special": [[*map(is_special, side)] for side in (heads.queries, heads.keys)],
                "weights": np.round(heads.weights.astype(np.float64), 4).tolist(),
            }
            for heads in self.layers
        ]
        data = {"layers": layers, "arcs": self.as_arcs}
        return pages.page(self._title(), ["attention.css", "attention.js"], data)

    def _title(self) -> str:
        widest = max(self.layers, key=lambda heads: len(heads.keys))
        return "Attention: " + " ".join(t for t in widest.keys if not is_special(t))[:80]

    def __repr__(self) -> str:
        n_heads = sum(len(heads.weights) for heads in self.layers)
        return f"Attention({len(self.layers)} layers, {n_heads} heads)"


def attention(
    model: nn.Module,
    *inputs: str | Sequence[int] | Tensor,
    tokenizer: Any = None,
    layer: int | str | None = None,
    head: int | None = None,
    mean: bool = False,
    rollout: bool = False,
    arcs: bool = False,
) -> Attention:
    """Draw what each head looks at in a run of the model in evaluation mode.

    inputs: one sentence, as the model takes it: source and target of a model that translates (the
        target begins with bos_id; without one, the model's own translation is drawn), or one text.
        Each is a text, where a tokenizer is given, or token ids: a list or an integer Tensor (T,).
    tokenizer: of the model. Without it tokens are shown as their ids.
    layer, head, mean, rollout, arcs: what is drawn, as `Attention.choose` tells; by default every
        head of every layer, as maps.

    UserError where the model records no attention, for a text without a tokenizer, for a blank
    one, and for a layer or head that there is not.
    """
    ids = [_ids(given, tokenizer, i, model) for i, given in enumerate(inputs)]
    if isinstance(model, EncoderDecoder) and len(ids) == 1:
        ids.append(translated(model, ids[0]))
    wanted = 2 if isinstance(model, EncoderDecoder) else None
    if not ids or (wanted is not None and len(ids) != wanted):
        raise UserError(
            f"viz.attention: {len(ids)} sentences are given; a {type(model).__name__} takes "
            + ("its source, and the target if you have one" if wanted else "one text")
        )
    tokens = [_words(row, tokenizer) for row in ids]
    found = Attention(_layers(attention_maps(model, *ids), tokens[0], tokens[-1]))
    return found.choose(layer=layer, head=head, mean=mean, rollout=rollout, arcs=arcs)


def draw_attention(
    weights: Mapping[str, Weights],
    src_tokens: Sequence[str],
    tgt_tokens: Sequence[str],
    path: str | pathlib.Path,
) -> pathlib.Path:
    """Draw every head of every layer: queries downwards, keys to the right.

    weights: what attention_maps gives. tgt_tokens: the decoder's input; a decoder-only model has
        no source. path: a .svg, .html, .png or .pdf, which is given back. UserError for another
        suffix, and where tokens and weights differ in number.
    """
    Attention.form_of(path)
    return Attention(_layers(weights, src_tokens, tgt_tokens)).save(path)


def translated(model: EncoderDecoder, source: Sequence[int]) -> list[int]:
    """The decoder's input while the model translates a source greedily."""
    wanted, room = len(source) + _MORE, model.room(len(source))
    most = wanted if room is None else max(1, min(wanted, room))
    [[found]] = generate(model, [list(source)], max_new_tokens=most)
    return decoder_input(model, found.tokens, len(source))


def decoder_input(model: EncoderDecoder, tokens: Sequence[int], length: int) -> list[int]:
    """What the decoder is given to write these tokens for a source of that length."""
    return [model.config.bos_id, *tokens][: model.room(length)]


# Tokens ------------------------------------------------------------------------------------------


def _ids(given: Any, tokenizer: Any, place: int, model: nn.Module) -> list[int]:
    """The token ids of an input."""
    if isinstance(given, str):
        if tokenizer is None:
            raise UserError("viz.attention: a text needs tokenizer=, which makes token ids of it")
        if not given.strip():
            raise UserError("the sentence is blank; there is nothing to attend to")
        if isinstance(model, EncoderDecoder):
            if place:
                return [model.config.bos_id, *tokenizer.encode(given)]
            return list(tokenizer.encode(given, special=True))
        return list(tokenizer.encode_batch([given])[0])
    found = given.tolist() if hasattr(given, "tolist") else [*given]
    if found and all(isinstance(row, list) for row in found):  # a batch
        if len(found) > 1:
            raise UserError(f"viz.attention: draws one sentence, not a batch of {len(found)}")
        [found] = found
    if not found:
        raise UserError("viz.attention: there are no tokens to attend to")
    for token in found:
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
            raise TypeError(f"viz.attention: token ids are integers, not {token!r}")
    return [int(token) for token in found]


def _words(ids: Sequence[int], tokenizer: Any) -> tuple[str, ...]:
    return tuple(map(str, ids)) if tokenizer is None else tuple(tokenizer.tokens(ids))


def _layers(
    weights: Mapping[str, Weights], src: Sequence[str], tgt: Sequence[str]
) -> tuple[Heads, ...]:
    """Weights by module with the tokens that they are of."""
    sides = {"encoder": (src, src), "cross": (tgt, src), "self": (tgt, tgt)}
    found = []
    for name, made in weights.items():
        named = _role(name)  # or, in a model that has other names, what fits
        fitting = [role for role, (q, k) in sides.items() if made.shape[1:] == (len(q), len(k))]
        if not fitting:
            queries, keys = sides[named]
            raise UserError(
                f"attention of {name}: {made.shape[1]} queries and {made.shape[2]} keys, but "
                f"{len(queries)} and {len(keys)} tokens to name them"
            )
        role = named if named in fitting else fitting[0]
        queries, keys = sides[role]
        titles = tuple(f"head {i}" for i in range(1, len(made) + 1))
        weight = made.astype(np.float32)
        found.append(Heads(name, weight, tuple(queries), tuple(keys), titles, role))
    return tuple(found)


def _role(name: str) -> str:
    """Whether a module of that name looks at the source for the source ("encoder"), at the source
    for the target ("cross"), or at its own text ("self")."""
    parts = name.partition("#")[0].split(".")
    if parts[0] == "encoder":
        return "encoder"
    return "cross" if parts[-1] in ("cross_attn", "attention") else "self"


# Choice ------------------------------------------------------------------------------------------


def _called(layers: Sequence[Heads], layer: int | str) -> list[Heads]:
    """The layers of which a name, or some parts of one after another, are so called."""
    wanted = str(layer).split(".")

    def matches(name: str) -> bool:
        parts = name.partition("#")[0].split(".")
        places = range(len(parts) - len(wanted) + 1)
        return name == layer or any(parts[i : i + len(wanted)] == wanted for i in places)

    found = [heads for heads in layers if matches(heads.name)]
    if not found:
        names = [heads.name for heads in layers]
        more = ", ..." if len(names) > _LISTED else ""
        raise UserError(
            f'no layer is called "{layer}"; there are {", ".join(names[:_LISTED])}{more}'
        )
    return found


def _head(heads: Heads, number: int) -> Heads:
    count = len(heads.weights)
    if isinstance(number, bool) or not 1 <= number <= count:
        raise UserError(f"{heads.name} has no head {number}: they are counted from 1 to {count}")
    part = slice(number - 1, number)
    return heads._replace(weights=heads.weights[part], titles=heads.titles[part])
