"""The attention weights of a model's heads, read out of a run.

In: a model with the token ids of one sentence. Out: the weights by module. Called by users and by
attention.py. Attention is one op that keeps no weights, so they are computed again from the
recorded queries and keys; a Seq2Seq's, whose module may be called for each target position by
itself, from what that is called with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .. import nn
from ..context import set_grad_enabled
from ..creation import tensor
from ..errors import UserError
from ..models import seq2seq
from ..nn import functional as F  # noqa: N812
from ..nn.module import evaluating
from ..node import Graph, Node
from ..ops import ATTENTION
from ..tensor import Tensor
from .heads import Weights


def attention_maps(model: nn.Module, *ids: Sequence[int]) -> dict[str, Weights]:
    """The attention weights of a run of the model in evaluation mode, by the module's name.

    ids: the token ids of one sentence, as the model takes them: source and decoder input, or one
        sequence for a GPT. Each result is (heads, queries, keys); its rows add up to 1, and are 0
        at masked keys. UserError where the model records no attention.
    """
    device = next(model.parameters()).device
    with (  # recorded nodes keep their inputs
        evaluating(model.modules()),
        set_grad_enabled(True),
        learning(model),
        _written_out(model) as found,
    ):
        out: Tensor = model(*(tensor([list(row)], device=device) for row in ids))
    for node in Graph([out.node]):
        if node.op is ATTENTION:
            name = node.scope.partition(".")[2] or node.scope  # without the model's own name
            calls = sum(known.partition("#")[0] == name for known in found)
            found[f"{name}#{calls + 1}" if calls else name] = _weights(node)
    if not found:
        raise UserError(
            f"no attention is recorded in a run of {type(model).__name__}: it calls neither "
            "F.scaled_dot_product_attention nor a module that does"
        )
    place = {name: i for i, (name, _) in enumerate(model.named_modules())}
    order = sorted(found, key=lambda name: place.get(name.partition("#")[0], len(place)))
    return {name: found[name] for name in order}


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """Frozen parameters learn inside: what is computed of them alone is not recorded otherwise."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.dtype.is_floating_point]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


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
