"""work: what a call of a kernel multiplies and moves, and what a use of an op multiplies.

In: a Call, a Node. Out: numbers. Called by all who measure plans: explain.py, costs.py,
estimate.py, timeline.py, describe.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ...backends.kernels.arguments import (
    AttentionArgs,
    AttentionGradArgs,
    AttentionKeyGradArgs,
    AttentionQueryGradArgs,
    GemmArgs,
    GemmEpilogueArgs,
    MatmulArgs,
)
from ...backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    AttentionKeyGrad,
    AttentionQueryGrad,
    Gemm,
    GemmEpilogue,
    Matmul,
)
from ...node import Graph, Node
from ..schedule.records import Call, Launch, Loop, View, itemsize

FLOPS_PER_BYTE = 10  # how the time of a wave is split among its launches


def flops(call: Call) -> int:
    """Of the products in a call; elementwise work is measured in bytes."""
    if call.loop:
        return call.loop.rounds * sum(map(flops, _inside(call.loop)))
    match call.kernel, call.args:
        case Matmul() | Gemm(), MatmulArgs(m=m, n=n, k=k) | GemmArgs(m=m, n=n, k=k) as args:
            return 2 * args.b0 * args.b1 * m * n * k
        case GemmEpilogue(), GemmEpilogueArgs(product=args):
            return 2 * args.b0 * args.b1 * args.m * args.n * args.k
        case Attention(causal=causal), AttentionArgs(b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v):
            return 2 * b * h * t * s * (d_k + d_v) // (1 + causal)
        case AttentionGrad(causal=causal), AttentionGradArgs(b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v):
            # The scores again, their gradient, dq, dk and dv.
            return 2 * b * h * t * s * (3 * d_k + 2 * d_v) // (1 + causal)
        case AttentionQueryGrad(causal=causal), AttentionQueryGradArgs(
            b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v
        ):
            return 2 * b * h * t * s * (2 * d_k + d_v) // (1 + causal)
        case AttentionKeyGrad(causal=causal), AttentionKeyGradArgs(
            b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v
        ):
            return 2 * b * h * t * s * (2 * d_k + 2 * d_v) // (1 + causal)
        case _:
            return 0


def _inside(loop: Loop) -> list[Call]:
    """The calls of one round."""
    return [call for launch in loop.plan.launches() for call in launch.calls]


def moved(call: Call) -> int:
    """The bytes that a call reads and writes: each operand once, in each round of a loop."""
    if call.loop:
        return call.loop.rounds * sum(map(moved, _inside(call.loop)))
    rows = call.gathered
    seen: list[View] = []
    total = 0
    for i, view in enumerate((*call.reads, *call.writes)):
        if any(view.same(other) for other in seen):
            continue
        seen.append(view)
        steps = zip(view.shape, view.strides, strict=True)
        total += prod(n for n, step in steps if step or i in rows) * itemsize(view.dtype)
    return total


def share(call: Call) -> float:
    """How much of the time of a wave is a call's, beside others, as far as its work tells."""
    return 1 + flops(call) / FLOPS_PER_BYTE + moved(call)


def calls_run(launch: Launch, times: int = 1) -> list[tuple[Call, int]]:
    """The calls of a launch and the number of times that each runs; of a loop, those in its
    rounds."""
    if launch.loop is None:
        return [(call, times) for call in launch.calls]
    times *= launch.loop.rounds
    return [x for inner in launch.loop.plan.launches() for x in calls_run(inner, times)]


def node_flops(node: Node) -> int:
    """Of the products in a use of an op, counted as flops() counts those of a call."""
    srcs, attrs = node.srcs, node.attrs
    match node.op.name:
        case "matmul":
            return 2 * prod(node.shape) * srcs[0].shape[-1]
        case "convolution":  # groups, places of a window and channels, to channels
            return 2 * prod(node.shape) * prod(srcs[1].shape[1:-1])
        case "attention":
            q, k, v = srcs[:3]
            return _pairs(q, k, attrs) * (k.shape[-1] + v.shape[-1])
        case "attention_grad":
            _, q, k, v = srcs[:4]
            return _pairs(q, k, attrs) * (3 * k.shape[-1] + 2 * v.shape[-1])
        case "scan":
            made: Any = attrs["round"]
            inside = Graph((*made.outs, *attrs["keep"]))
            return int(attrs["length"]) * sum(map(node_flops, inside))
    return 0


def _pairs(q: Node, k: Node, attrs: Mapping[str, Any]) -> int:
    """Twice the pairs of a query and a key that are scored."""
    return 2 * prod(q.shape[:-1]) * k.shape[-2] // (1 + bool(attrs["causal"]))
