"""The attention weights of a model's heads, read out of a run, and their picture.

In: a model with the token ids of one sentence; the weights with the tokens as text. Out: the
weights by module; a file. Called by users and by `tinygrad-tx attention`. Attention is one op that
keeps no weights, so they are computed again from the recorded queries and keys; a Seq2Seq's, whose
module may be called for each target position by itself, from what that is called with.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import atomic, nn
from ..context import set_grad_enabled
from ..creation import tensor
from ..errors import UserError
from ..models import seq2seq
from ..nn import functional as F  # noqa: N812
from ..nn.module import evaluating
from ..node import Graph, Node
from ..ops import ATTENTION
from ..tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Weights = np.ndarray[Any, np.dtype[Any]]
_FORMATS = (".png", ".svg", ".pdf")


def attention_maps(model: nn.Module, *ids: Sequence[int]) -> dict[str, Weights]:
    """The attention weights of a run of the model in evaluation mode, by the module's name.

    ids: the token ids of one sentence, as the model takes them: source and decoder input, or one
        sequence for a GPT. Each result is (heads, queries, keys); its rows add up to 1, and are 0
        at masked keys. UserError where the model records no attention.
    """
    device = next(model.parameters()).device
    # Recorded nodes keep their inputs.
    with evaluating(model.modules()), set_grad_enabled(True), _written_out(model) as found:
        out: Tensor = model(*(tensor([list(row)], device=device) for row in ids))
    for node in Graph([out.node]):
        if node.op is ATTENTION:
            name = node.scope.partition(".")[2] or node.scope  # without the model's own name
            calls = sum(known.partition("#")[0] == name for known in found)
            found[f"{name}#{calls + 1}" if calls else name] = _weights(node)
    if not found:
        raise UserError(
            f"no attention is recorded in a run of {type(model).__name__}: it has none, or all of "
            "its parameters are frozen (model.requires_grad_() makes them learn)"
        )
    place = {name: i for i, (name, _) in enumerate(model.named_modules())}
    order = sorted(found, key=lambda name: place.get(name.partition("#")[0], len(place)))
    return {name: found[name] for name in order}


@contextmanager
def _written_out(model: nn.Module) -> Iterator[dict[str, Weights]]:
    """Gives the weights of a Seq2Seq's attention, if it is one that runs inside."""
    found: dict[str, Weights] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, seq2seq.Attention)
        made = module.weights(*args).detach().numpy()  # (1, queries, keys)
        name = names[module]
        found[name] = np.concatenate([found[name], made], 1) if name in found else made

    names = {m: name for name, m in model.named_modules() if isinstance(m, seq2seq.Attention)}
    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_hook(keep))
        yield found


def _weights(node: Node) -> Weights:
    """softmax(scale q k^T + mask) of an attention node: (heads, queries, keys)."""
    q, k, _, *mask = map(Tensor, node.srcs)
    q = q.detach() * (node.attrs["scale"] * math.sqrt(q.shape[-1]))  # F scales by 1 / sqrt(d_k)
    weights = F.attention_weights(
        q,
        k.detach(),
        mask[0] if mask else None,
        node.attrs["causal"],
        group=node.attrs.get("group", 1),
    )
    return weights.reshape(-1, *weights.shape[-2:]).detach().numpy()


def draw_attention(
    weights: Mapping[str, Weights],
    src_tokens: Sequence[str],
    tgt_tokens: Sequence[str],
    path: str | pathlib.Path,
) -> pathlib.Path:
    """Draw every head of every layer: a row for each layer, queries downwards, keys to the right.

    weights: what attention_maps gives. tgt_tokens: the decoder's input; a decoder-only model has
        no source. path: a .png, .svg or .pdf, which is given back. UserError for another suffix,
        where tokens and weights differ in number, and without matplotlib.
    """
    path = pathlib.Path(path)
    if path.suffix not in _FORMATS:
        raise UserError(f'cannot draw "{path}": its name must end in one of {", ".join(_FORMATS)}')
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures of attention need matplotlib: pip install matplotlib") from None
    rows = [(name, w, *_tokens(name, w, src_tokens, tgt_tokens)) for name, w in weights.items()]
    columns = max(len(w) * (w.shape[2] + 1) for w in weights.values())
    cell = 0.17  # inches: a line of small print
    height = sum(w.shape[1] * cell + 1.0 for w in weights.values())
    figure = Figure(figsize=(columns * cell + 2.0, height), layout="constrained")
    grid = figure.subplots(
        len(rows), squeeze=False, gridspec_kw={"height_ratios": [w.shape[1] for _, w, *_ in rows]}
    )[:, 0]
    for axis, row in zip(grid, rows, strict=True):
        image = _draw_layer(axis, *row)
        axis.set_xlim(-0.6, columns - 1.4)
    figure.colorbar(image, ax=grid, shrink=min(1.0, 2.5 / len(rows)), aspect=30, label="weight")
    buffer = BytesIO()
    width, height = figure.get_size_inches()
    dpi = min(120, 60_000 / max(width, height), math.sqrt(1e8 / (width * height)))  # Agg's limits
    figure.savefig(buffer, format=path.suffix[1:], dpi=dpi)
    atomic.write_bytes(path, buffer.getvalue())
    return path


def _draw_layer(
    axis: Axes, name: str, weights: Weights, queries: Sequence[str], keys: Sequence[str]
) -> AxesImage:
    """All heads of a layer beside each other: one plot, for each plot costs much of the time."""
    heads, height, width = weights.shape
    strip = np.full((height, heads, width + 1), np.nan)
    strip[:, :, :-1] = weights.swapaxes(0, 1)
    image = axis.imshow(strip.reshape(height, -1), vmin=0, vmax=1, cmap="Blues")
    places: list[int] = []
    for head in range(heads):
        left = head * (width + 1)
        places += range(left, left + width)
        axis.plot(
            np.array([0, 0, width, width, 0]) + left - 0.5,
            np.array([0, height, height, 0, 0]) - 0.5,
            color="black",
            linewidth=0.8,
            clip_on=False,
        )
        middle = left + (width - 1) / 2
        axis.text(middle, -0.8, f"head {head + 1}", fontsize=8, ha="center", va="bottom")
    axis.set_xticks(places, [*keys] * heads, rotation=90, fontsize=7, parse_math=False)
    axis.set_yticks(range(height), queries, fontsize=7, parse_math=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_ylabel(name, fontsize=9, fontweight="bold")
    return image


def _tokens(
    name: str, weights: Weights, src: Sequence[str], tgt: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """The tokens that ask and those that are looked at in a module of that name."""
    parts = name.partition("#")[0].split(".")
    queries = src if parts[0] == "encoder" else tgt
    keys = src if parts[0] == "encoder" or parts[-1] in ("cross_attn", "attention") else tgt
    if weights.shape[1:] != (len(queries), len(keys)):
        raise UserError(
            f"attention of {name}: {weights.shape[1]} queries and {weights.shape[2]} keys, but "
            f"{len(queries)} and {len(keys)} tokens to name them"
        )
    return queries, keys
