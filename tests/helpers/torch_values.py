"""Values from PyTorch, recorded: what losses, optimizers, schedules and initial values are held to.

`python tests/helpers/torch_values.py`, with PyTorch installed, writes torch_values.json;
test_torch_values.py reads it and needs no PyTorch. A case is a function of a `Library`, PyTorch or
this one: the same lines run on both.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).parent / "torch_values.json"


class Library(NamedTuple):
    """The names that the cases use; compiled: the steps of optimizers run as one program."""

    t: Any
    nn: Any
    F: Any
    optim: Any
    compile: Callable[[Any], Any]
    tensor: Callable[[Any], Any]


def ours(compiled: bool = False, device: str = "cpu") -> Library:
    import tinygrad_tx as tx

    compile = tx.compile if compiled else lambda f: f
    tensor = partial(tx.tensor, device=device)
    return Library(tx, tx.nn, tx.nn.functional, tx.optim, compile, tensor)


def theirs() -> Library:
    import torch

    return Library(torch, torch.nn, torch.nn.functional, torch.optim, lambda f: f, torch.from_numpy)


Case = Callable[[Library], list[Any]]

# Losses: an expression on the inputs below -----------------------------------------------------

_rng = np.random.default_rng(7)
_SIGNS = np.array([1, -1, 1])
INPUTS = {
    "x": _rng.standard_normal((3, 4)) * 1.5,
    "y": _rng.standard_normal((3, 4)),
    "z": _rng.standard_normal((3, 4)),
    "p": _rng.uniform(0.1, 0.9, (3, 4)),
    "q": _rng.uniform(0.1, 0.9, (3, 4)),
    "w": _rng.uniform(0.5, 2.0, 4),
    "w2": _rng.uniform(0.5, 2.0, (3, 4)),
    "v4": np.array([1, 2, 5, 1]),
    "v": _rng.uniform(0.5, 2.0, 3),
    "x3": _rng.standard_normal((2, 4, 3)),
    "zero": np.array([[0.0, 1.0, 0.3, 0.0], [1.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 0.2]]),
    "ids": np.array([2, 0, 3]),
    "ids3": np.array([[2, 0, 3], [1, 1, 2]]),
    "signs": _SIGNS,
    "fsigns": np.where(_rng.random((3, 4)) < 0.5, 1.0, -1.0),
    "dist": _rng.uniform(0.1, 1.9, (3, 4)),
    "counts": _rng.integers(0, 5, (3, 4)).astype(float),
}
LOSSES = {
    "bce": "F.binary_cross_entropy(p, q)",
    "bce weight": "F.binary_cross_entropy(p, q, w.detach(), reduction='sum')",
    "bce none": "F.binary_cross_entropy(p, q, reduction='none')",
    "bce at 0 and 1": "F.binary_cross_entropy(zero, zero.detach(), reduction='none')",
    "bce far off": "F.binary_cross_entropy(zero.detach() + q * 0, 1 - zero, reduction='none')",
    "logits": "F.binary_cross_entropy_with_logits(x, q)",
    "logits at 0": "F.binary_cross_entropy_with_logits(x * 0, q, reduction='sum')",
    "logits large": "F.binary_cross_entropy_with_logits(x * 500, q, w2.detach(), reduction='none')",
    "logits weights": "F.binary_cross_entropy_with_logits(x, q, w2.detach(), pos_weight=v4)",
    "nll": "F.nll_loss(F.log_softmax(x, 1), ids)",
    "nll weight": "F.nll_loss(x, ids, w.detach(), ignore_index=3)",
    "nll many": "F.nll_loss(x3, ids3, w.detach(), reduction='none')",
    "nll one": "F.nll_loss(x[0], ids[0], reduction='sum')",
    "nll ignore": "F.nll_loss(x3, ids3, ignore_index=1, reduction='mean')",
    "kl": "F.kl_div(x, q, reduction='batchmean')",
    "kl mean": "F.kl_div(x, q)",
    "kl zeros": "F.kl_div(x, zero.detach(), reduction='none')",
    "kl log": "F.kl_div(x, y, reduction='sum', log_target=True)",
    "l1": "F.l1_loss(x, y)",
    "l1 weight": "F.l1_loss(x, y, reduction='mean', weight=w2.detach())",
    "smooth": "F.smooth_l1_loss(x, y)",
    "smooth beta": "F.smooth_l1_loss(x, y, beta=0.4, reduction='sum')",
    "smooth 0": "F.smooth_l1_loss(x, y, beta=0.0, reduction='none')",
    "smooth same": "F.smooth_l1_loss(x, x.detach(), reduction='sum')",
    "huber": "F.huber_loss(x, y)",
    "huber delta": "F.huber_loss(x, y, 'none', 0.7)",
    "huber weight": "F.huber_loss(x, y, weight=w2.detach())",
    "cosine": "F.cosine_similarity(x, y)",
    "cosine dim": "F.cosine_similarity(x, w, dim=-1, eps=3.0)",
    "cosine rows": "F.cosine_similarity(x, y, 0)",
    "cosine of one row": "F.cosine_similarity(x[:1], y, 0)",
    "cosine of ranks": "F.cosine_similarity(x[0], y, -1)",
    "normalize": "F.normalize(x)",
    "normalize p": "F.normalize(x, p=1, dim=0)",
    "distance": "F.pairwise_distance(x, y)",
    "distance 1": "F.pairwise_distance(x, y, p=1.0, keepdim=True)",
    "embedding": "F.cosine_embedding_loss(x, y, signs, margin=-0.4)",
    "embedding one": "F.cosine_embedding_loss(x[0], y[0], signs[0], reduction='sum')",
    "ranking": "F.margin_ranking_loss(x, y, fsigns.detach(), margin=0.3)",
    "hinge": "F.hinge_embedding_loss(dist, fsigns.detach())",
    "soft margin": "F.soft_margin_loss(x, fsigns.detach(), reduction='none')",
    "triplet": "F.triplet_margin_loss(x, y, z, margin=1.5, reduction='none')",
    "triplet swap": "F.triplet_margin_loss(x, y, z, p=1, swap=True, reduction='sum')",
    "gaussian": "F.gaussian_nll_loss(x, y, w2, full=True)",
    "gaussian rows": "F.gaussian_nll_loss(x, y, v, reduction='none')",
    "gaussian eps": "F.gaussian_nll_loss(x, y, w2, eps=1.1, reduction='sum')",
    "poisson": "F.poisson_nll_loss(x, counts.detach(), full=True)",
    "poisson rates": "F.poisson_nll_loss(p, counts.detach(), log_input=False, reduction='sum')",
    "logsigmoid": "F.logsigmoid(x)",
    "logsigmoid at 0": "F.logsigmoid(x * 0)",
}  # fmt: skip


def loss(code: str, order: int = 2) -> Case:
    """The value, its gradients by all inputs, and those of the gradients' squares."""
    program = compile(code, code, "eval")
    names = [n for n in program.co_names if n in INPUTS]

    def run(lib: Library) -> list[Any]:
        given = {n: lib.tensor(INPUTS[n].copy()) for n in names}
        leaves = [x for n, x in given.items() if INPUTS[n].dtype.kind == "f"]

        def values(*tensors: Any) -> list[Any]:
            given = dict(zip(names, tensors, strict=True))
            y = eval(program, {"F": lib.F, "t": lib.t}, given)
            found = [y.detach()]
            total = (y * y).sum()
            for _ in range(order):
                for x in leaves_of(given):
                    x.grad = None
                total.backward(create_graph=True)
                grads = [x.grad for x in leaves_of(given) if x.grad is not None]
                found += [g.detach() for g in grads]
                total = sum((g * g).sum() for g in grads)
                if not total.requires_grad:
                    break
            for x in leaves_of(given):
                x.grad = None
            return found

        def leaves_of(given: dict[str, Any]) -> list[Any]:
            return [x for n, x in given.items() if INPUTS[n].dtype.kind == "f"]

        for x in leaves:
            x.requires_grad_(True)
        return lib.compile(values)(*given.values())

    return run


# Optimizers: six steps, of which one parameter misses the third -----------------------------------

STARTS = [_rng.standard_normal(shape) for shape in ((3, 4), (5,), (), (2, 3, 2))]
GRADIENTS = [[_rng.standard_normal(s.shape) for s in STARTS] for _ in range(6)]
OPTIMIZERS = {
    "sgd": "optim.SGD(ps, 0.1, momentum=0.9, dampening=0.1, weight_decay=0.1, maximize=True)",
    "adam": "optim.Adam(ps, 0.1)",
    "amsgrad": "optim.Adam(ps, 0.1, (0.5, 0.6), weight_decay=0.1, amsgrad=True)",
    "amsgrad decoupled": "optim.AdamW(ps, 0.1, (0.5, 0.6), 1e-3, amsgrad=True, maximize=True)",
    "rmsprop": "optim.RMSprop(ps)",
    "rmsprop centered": "optim.RMSprop(ps, 0.1, 0.9, weight_decay=0.1, centered=True)",
    "rmsprop momentum": "optim.RMSprop(ps, 0.1, 0.9, 1e-3, momentum=0.8, maximize=True)",
    "adagrad": "optim.Adagrad(ps)",
    "adagrad decay": "optim.Adagrad(ps, 0.1, 0.2, 0.1, initial_accumulator_value=0.5)",
    "adafactor": "optim.Adafactor(ps)",
    "adafactor options": "optim.Adafactor(ps, 0.5, -0.5, (1e-8, 0.1), 1.5, weight_decay=0.1)",
    "groups": "optim.RMSprop([{'params': ps[:1], 'lr': 0.1}, {'params': ps[1:], 'alpha': 0.5}])",
}


def optimizer(code: str) -> Case:
    """The parameters after the steps."""

    def run(lib: Library) -> list[Any]:
        ps = [lib.nn.Parameter(lib.tensor(start.copy())) for start in STARTS]
        made = eval(code, {"optim": lib.optim, "ps": ps})

        def step(*gradients: Any) -> None:
            for p, g in zip(ps, gradients, strict=True):
                p.grad = g
            made.step()

        step = lib.compile(step)
        for i, gradients in enumerate(GRADIENTS):
            given = [lib.tensor(g.copy()) for g in gradients]
            step(*given[:1], None if i == 2 else given[1], *given[2:])
        return [p.detach() for p in ps]

    return run


def adding(lib: Library) -> list[Any]:
    """A group that comes after two steps, and the schedule that goes on with it."""
    ps = [lib.nn.Parameter(lib.tensor(start.copy())) for start in STARTS[:2]]
    made = lib.optim.Adam(ps[:1], 0.1)
    for i, gradients in enumerate(GRADIENTS):
        if i == 2:
            made.add_param_group({"params": ps[1], "lr": 0.3, "betas": (0.5, 0.6)})
        for p, g in zip(ps, gradients[:2], strict=True):
            p.grad = lib.tensor(g.copy())
        made.step()
    return [p.detach() for p in ps]


def clipping(lib: Library) -> list[Any]:
    """Norms of several orders, and what is left of the gradients."""
    utils, found = lib.optim if hasattr(lib.optim, "clip_grad_norm_") else lib.nn.utils, []
    ps = [lib.nn.Parameter(lib.tensor(start.copy())) for start in STARTS]
    for norm_type in (2.0, 1.0, 3.5, float("inf"), "inf"):
        for p, g in zip(ps, GRADIENTS[0], strict=True):
            p.grad = lib.tensor(g.copy())
        found.append(utils.clip_grad_norm_(ps, 1.5, norm_type))
        found += [p.grad * 1 for p in ps]  # which PyTorch goes on to change
    utils.clip_grad_value_(ps, 0.3)
    return [x.detach() for x in (*found, *(p.grad for p in ps))]


# Schedules: the lr of two groups before each of 25 steps ------------------------------------------

SCHEDULES = {
    "lambda": "s.LambdaLR(o, lambda epoch: 0.9**epoch)",
    "lambdas": "s.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), lambda epoch: 0.5**epoch])",
    "step": "s.StepLR(o, 3)",
    "multistep": "s.MultiStepLR(o, [2, 5, 5, 11], 0.5)",
    "exponential": "s.ExponentialLR(o, 0.8)",
    "constant": "s.ConstantLR(o)",
    "linear": "s.LinearLR(o, 0.2, 0.9, 7)",
    "polynomial": "s.PolynomialLR(o, 8, 1.7)",
    "cosine": "s.CosineAnnealingLR(o, 6, 0.01)",
    "restarts": "s.CosineAnnealingWarmRestarts(o, 4, eta_min=0.01)",
    "longer restarts": "s.CosineAnnealingWarmRestarts(o, 2, 2)",
    "cycle": "s.OneCycleLR(o, 0.5, 25)",
    "cycle options": "s.OneCycleLR(o, [0.5, 0.3], epochs=5, steps_per_epoch=5, pct_start=0.41, "
    "anneal_strategy='linear', base_momentum=0.5, div_factor=7, final_div_factor=3.0, "
    "three_phase=True)",
    "sequence": "s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 4), s.CosineAnnealingLR(o, 5), "
    "s.ExponentialLR(o, 0.7)], [4, 10])",
    "plateau": "s.ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=2, min_lr=0.02)",
    "plateau max": "s.ReduceLROnPlateau(o, 'max', 0.3, 2, 0.5, 'abs', min_lr=[0.0, 0.1], eps=1e-2)",
}
SGD = "SGD(groups, lr=0.2, momentum=0.9, nesterov=True)"
METRICS = np.abs(_rng.standard_normal(25)) * np.linspace(2, 1, 25)


def schedule(code: str, kind: str = "Adam(groups, lr=0.2)") -> Case:
    """The rates, and the parameters that an optimizer makes with them."""

    def run(lib: Library) -> list[Any]:
        ps = [lib.nn.Parameter(lib.tensor(start.copy())) for start in STARTS[:2]]
        groups = [{"params": ps[:1]}, {"params": ps[1:], "lr": 0.4}]
        o = eval(f"optim.{kind}", {"optim": lib.optim, "groups": groups})
        made = eval(code, {"o": o, "s": lib.optim.lr_scheduler})

        def step(metric: Any) -> None:
            for p in ps:
                p.grad = p.detach() * 0.5 + metric
            o.step()
            made.step(metric) if "Plateau" in code else made.step()

        step, rates = lib.compile(step), []
        for metric in METRICS:
            rates += [float(group["lr"]) for group in o.param_groups]
            step(lib.tensor(np.array(metric)))
        return [np.array(rates), *(p.detach() for p in ps)]

    return run


CASES: dict[str, Case] = {
    **{f"loss: {name}": loss(code) for name, code in LOSSES.items()},
    **{f"optimizer: {name}": optimizer(code) for name, code in OPTIMIZERS.items()},
    "optimizer: adding": adding,
    "clipping": clipping,
    **{f"schedule: {name}": schedule(code) for name, code in SCHEDULES.items()},
    "schedule: cycled nesterov": schedule("s.OneCycleLR(o, 0.5, 25)", SGD),
    "schedule: cycled momentum": schedule(
        "s.OneCycleLR(o, 0.5, 25)", "RMSprop(groups, 0.2, momentum=0.9)"
    ),
}

# Those that are compiled, too; a compiled plan costs more than many of the others together.
COMPILED = [
    *("loss: logits weights", "loss: nll weight", "loss: smooth beta"),
    *("optimizer: groups", "schedule: cycled nesterov"),
]


def flat(values: list[Any]) -> Iterator[list[float]]:
    """Each Tensor as a list of numbers."""
    for value in values:
        yield np.asarray(value.tolist() if hasattr(value, "tolist") else value).ravel().tolist()


def record() -> dict[str, list[list[float]]]:
    lib = theirs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: list(flat(case(lib))) for name, case in CASES.items()}


if __name__ == "__main__":
    rows = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in record().items())
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
