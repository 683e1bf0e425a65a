"""Methods of Tensors as functions, as PyTorch has them: tx.sum(x, dim) for x.sum(dim).

Out: a function for each name, which `tinygrad_tx` offers and loads when one is first used. All of
PyTorch's take out=, which is refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .arguments import shown
from .spelling import refuse
from .tensor import Tensor


def _function(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method as a function of its Tensor, which is called input."""
    name = method.__name__
    kinds = inspect.Parameter
    self, *rest = inspect.signature(method).parameters.values()
    first = self.replace(name="input", annotation="Tensor")
    out = kinds("out", kinds.KEYWORD_ONLY, default=None, annotation="None")

    def call(*args: Any, out: None = None, **given: Any) -> Any:
        refuse(name, out=out)
        if not args and "input" in given:
            args = (given.pop("input"),)
        if args and not isinstance(args[0], Tensor):
            raise TypeError(
                f"{name}: input must be a Tensor, not {shown(args[0])}: wrap it in tx.tensor(...)"
            )
        return method(*args, **given)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = method.__doc__
    call.__signature__ = inspect.Signature([first, *rest, out])  # type: ignore[attr-defined]
    return call


abs = _function(Tensor.abs)
add = _function(Tensor.add)
all = _function(Tensor.all)
allclose = _function(Tensor.allclose)
amax = _function(Tensor.amax)
amin = _function(Tensor.amin)
any = _function(Tensor.any)
argmax = _function(Tensor.argmax)
argmin = _function(Tensor.argmin)
argsort = _function(Tensor.argsort)
atan2 = _function(Tensor.atan2)
bitwise_and = _function(Tensor.bitwise_and)
bitwise_not = _function(Tensor.bitwise_not)
bitwise_or = _function(Tensor.bitwise_or)
bitwise_xor = _function(Tensor.bitwise_xor)
broadcast_to = _function(Tensor.broadcast_to)
ceil = _function(Tensor.ceil)
chunk = _function(Tensor.chunk)
clamp = _function(Tensor.clamp)
clip = _function(Tensor.clip)
clone = _function(Tensor.clone)
cos = _function(Tensor.cos)
cosh = _function(Tensor.cosh)
cumprod = _function(Tensor.cumprod)
cumsum = _function(Tensor.cumsum)
diagonal = _function(Tensor.diagonal)
div = _function(Tensor.div)
eq = _function(Tensor.eq)
erf = _function(Tensor.erf)
exp = _function(Tensor.exp)
expm1 = _function(Tensor.expm1)
flatten = _function(Tensor.flatten)
flip = _function(Tensor.flip)
floor = _function(Tensor.floor)
floor_divide = _function(Tensor.floor_divide)
gather = _function(Tensor.gather)
ge = _function(Tensor.ge)
gt = _function(Tensor.gt)
index_add = _function(Tensor.index_add)
index_select = _function(Tensor.index_select)
isclose = _function(Tensor.isclose)
isfinite = _function(Tensor.isfinite)
isinf = _function(Tensor.isinf)
isnan = _function(Tensor.isnan)
le = _function(Tensor.le)
log = _function(Tensor.log)
log10 = _function(Tensor.log10)
log1p = _function(Tensor.log1p)
log2 = _function(Tensor.log2)
log_softmax = _function(Tensor.log_softmax)
logical_and = _function(Tensor.logical_and)
logical_not = _function(Tensor.logical_not)
logical_or = _function(Tensor.logical_or)
logical_xor = _function(Tensor.logical_xor)
logsumexp = _function(Tensor.logsumexp)
lt = _function(Tensor.lt)
masked_fill = _function(Tensor.masked_fill)
max = _function(Tensor.max)
mean = _function(Tensor.mean)
median = _function(Tensor.median)
min = _function(Tensor.min)
mul = _function(Tensor.mul)
ne = _function(Tensor.ne)
neg = _function(Tensor.neg)
nonzero = _function(Tensor.nonzero)
norm = _function(Tensor.norm)
outer = _function(Tensor.outer)
permute = _function(Tensor.permute)
pow = _function(Tensor.pow)
prod = _function(Tensor.prod)
quantile = _function(Tensor.quantile)
reciprocal = _function(Tensor.reciprocal)
relu = _function(Tensor.relu)
remainder = _function(Tensor.remainder)
repeat_interleave = _function(Tensor.repeat_interleave)
reshape = _function(Tensor.reshape)
roll = _function(Tensor.roll)
round = _function(Tensor.round)
rsqrt = _function(Tensor.rsqrt)
scatter = _function(Tensor.scatter)
scatter_add = _function(Tensor.scatter_add)
scatter_reduce = _function(Tensor.scatter_reduce)
sigmoid = _function(Tensor.sigmoid)
sign = _function(Tensor.sign)
sin = _function(Tensor.sin)
sinh = _function(Tensor.sinh)
softmax = _function(Tensor.softmax)
sort = _function(Tensor.sort)
sqrt = _function(Tensor.sqrt)
square = _function(Tensor.square)
squeeze = _function(Tensor.squeeze)
std = _function(Tensor.std)
sub = _function(Tensor.sub)
sum = _function(Tensor.sum)
take_along_dim = _function(Tensor.take_along_dim)
tan = _function(Tensor.tan)
tanh = _function(Tensor.tanh)
tile = _function(Tensor.tile)
topk = _function(Tensor.topk)
trace = _function(Tensor.trace)
transpose = _function(Tensor.transpose)
trunc = _function(Tensor.trunc)
unbind = _function(Tensor.unbind)
unique = _function(Tensor.unique)
unsqueeze = _function(Tensor.unsqueeze)
var = _function(Tensor.var)
