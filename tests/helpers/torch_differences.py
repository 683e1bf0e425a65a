"""The deliberate differences from PyTorch, each with its reason: docs/pytorch.md prints this list,
and test_torch_signatures.py excuses what it names and nothing else."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """name: of ours, dotted; what is different, why, and which parameters it excuses."""

    name: str
    what: str
    why: str
    parameters: tuple[str, ...] = ()


_DOC = "PyTorch's own call takes these names, too; its documentation says others"
_OUT = ("out", "dtype")
_ONE_KIND = "one text serves the containers of modules and of parameters; give it by place"

DIFFERENCES = [
    # Parameters
    Difference(
        "tx.compile",
        "takes the function alone",
        "there is one compiler, without modes; TX_COMPILE and TX_DEBUG are its switches",
        (
            *("model", "fullgraph", "dynamic", "backend", "mode", "options", "name", "disable"),
            *("recompile_limit", "isolate_recompiles", "shapes_spec"),
        ),
    ),
    Difference(
        "tx.autocast",
        'autocast(precision, enabled), precision "bf16", "fp16", "fp32", or a dtype of 16 bits',
        "a Tensor says where it is; a weight is cast once in a compiled step",
        ("device_type", "dtype", "cache_enabled", "precision", "enabled"),
    ),
    Difference(
        "tx.save",
        "save(state, path, metadata): named Tensors in a safetensors file",
        "a pickle can run code when it is loaded",
        (
            *("obj", "f", "pickle_module", "pickle_protocol", "_use_new_zipfile_serialization"),
            *("_disable_byteorder_record", "state", "path"),
        ),
    ),
    Difference(
        "tx.load",
        "load(path, device): safetensors only",
        "as for save; device is PyTorch's map_location where that is a name",
        ("f", "map_location", "pickle_module", "weights_only", "mmap", "path"),
    ),
    Difference(
        "tx.set_num_threads", "set_num_threads(n)", "PyTorch's takes it by place only", ("n",)
    ),
    Difference("Tensor.broadcast_to", "the parameter is called size", _DOC, ("shape",)),
    Difference("Tensor.matmul", "the parameter is called other", _DOC, ("tensor2", "other")),
    Difference("Tensor.where", "the parameter is called other", _DOC, ("y", "other")),
    Difference("Tensor.topk", "dim is -1 by default, which is meant", _DOC, ("dim",)),
    Difference(
        "Tensor.var",
        "correction is None by default: 1, or 0 with unbiased=False",
        _DOC,
        ("correction",),
    ),
    Difference("Tensor.std", "as Tensor.var", _DOC, ("correction",)),
    *(
        Difference(name, "the parameter is called other", _DOC, (theirs, "other"))
        for name, theirs in (
            ("Tensor.div", "value"),
            ("Tensor.floor_divide", "value"),
            ("Tensor.mul", "value"),
            ("Tensor.remainder", "divisor"),
        )
    ),
    Difference("tx.broadcast_to", "the parameter is called size", _DOC, ("shape",)),
    Difference("tx.logsumexp", "keepdim is the third", _DOC, ("names", "keepdim", "out")),
    Difference("tx.norm", "dtype is the fifth, out goes by name", "as Tensor.norm", _OUT),
    Difference("tx.relu", "takes the Tensor alone", _DOC, ("inplace",)),
    Difference(
        "tx.searchsorted", "the second parameter is called input", _DOC, ("values", "input")
    ),
    Difference("tx.sort", "stable is None by default, as in Tensor.sort", _DOC, ("stable",)),
    Difference("tx.std", "as Tensor.var", _DOC, ("correction",)),
    Difference("tx.topk", "as Tensor.topk", _DOC, ("dim",)),
    Difference("tx.unique", "as Tensor.unique", "PyTorch's takes anything", ("input",)),
    Difference("tx.var", "as Tensor.var", _DOC, ("correction",)),
    Difference(
        "nn.Module",
        "takes no arguments, and its constructor need not be called",
        "what it consists of is found when asked for",
    ),
    Difference(
        "nn.Module.forward", "takes what a derived class's takes", "it is abstract", ("input",)
    ),
    Difference(
        "nn.Module.modules", "a shared module comes once", "as by default", ("remove_duplicate",)
    ),
    Difference(
        "nn.Module.named_modules",
        "names start at this module, a shared one comes once",
        "as by default; the other arguments are PyTorch's recursion",
        ("memo", "prefix", "remove_duplicate"),
    ),
    Difference(
        "nn.Module.named_parameters",
        "a shared parameter comes once",
        "as by default",
        ("remove_duplicate",),
    ),
    Difference(
        "nn.Module.named_buffers",
        "a shared buffer comes once",
        "as by default",
        ("remove_duplicate",),
    ),
    Difference(
        "nn.Module.register_buffer",
        "keeps a Tensor of its own; setting the attribute gives that one another value",
        "a compiled function carries it as state, by its identity",
    ),
    Difference(
        "nn.Module.state_dict",
        "makes a new dict; a shared parameter comes once, by its first name",
        "one Parameter is one entry of a file",
        ("args", "destination"),
    ),
    Difference("nn.Parameter", "data must be given", "there is no empty Parameter", ("data",)),
    Difference("nn.ModuleList.append", "append(member)", _ONE_KIND, ("module", "member")),
    Difference("nn.ModuleList.extend", "extend(members)", _ONE_KIND, ("modules", "members")),
    Difference("nn.ModuleList.insert", "insert(index, member)", _ONE_KIND, ("module", "member")),
    Difference("nn.ModuleDict.update", "update(members)", _ONE_KIND, ("modules", "members")),
    Difference("nn.ParameterList.append", "append(member)", _ONE_KIND, ("value", "member")),
    Difference("nn.ParameterList.extend", "extend(members)", _ONE_KIND, ("values", "members")),
    Difference("nn.ParameterDict.update", "update(members)", _ONE_KIND, ("parameters", "members")),
    Difference("nn.Sequential.append", "append(member)", _ONE_KIND, ("module", "member")),
    Difference("nn.Sequential.extend", "extend(members)", _ONE_KIND, ("sequential", "members")),
    Difference("nn.Sequential.insert", "insert(index, member)", _ONE_KIND, ("module", "member")),
    *(
        Difference(
            f"nn.{layer}.forward",
            "forward(x, hx, lengths): lengths say how much of each row counts; the other direction "
            "begins at a row's own end. PackedSequence is refused",
            "padding with lengths is one Tensor, whose shape a compiled function knows",
            ("input", "x", "hx"),
        )
        for layer in ("RNN", "LSTM", "GRU")
    ),
    Difference(
        "utils.data.Dataset",
        "tx.data.Dataset is a corpus of sentence pairs; tx.data.DataLoader takes seed",
        "whatever has a length and gives dataset[i] is a dataset, without a base; an order follows "
        "from the seed and the epoch",
        ("source", "target", "blank", "too_long"),
    ),
    # Meaning
    Difference(
        "tx.arange",
        "with an integer dtype, arange(3.1) is 0, 1, 2, 3, as with any other",
        "PyTorch cuts the end off first, for int64 alone",
    ),
    Difference(
        "tx.tensor",
        "Tensors in a list keep their shapes, as arrays do",
        "PyTorch takes those of one element for numbers, and refuses all others",
    ),
    Difference(
        "tx.empty", "the values are zeros", "a program that reads them does the same each time"
    ),
    Difference(
        "Tensor.view",
        "is reshape(): it always succeeds, and the result never aliases; the parameter is called "
        "size, as PyTorch's own call has it",
        "Tensors share no memory: `x[i] = ...` changes the one that it is written to",
        ("shape",),
    ),
    Difference(
        "Tensor.exp",
        "this and the other functions of floating numbers refuse integers: use .float()",
        "a change of dtype is written down",
    ),
    Difference(
        "Tensor.clip",
        "a bound may be a number beside a Tensor, and both may be missing; integers take no float",
        "what it means is plain; a change of dtype is written down",
    ),
    Difference(
        "Tensor.logsumexp",
        "dim may be left out; the gradient of a row of -inf is 0, not NaN",
        "a sum over no term that counts changes with none of them",
    ),
    Difference(
        "Tensor.index_select",
        "this, index_add, gather and take_along_dim count negative indices from the end",
        "as x[index] does; PyTorch refuses them",
    ),
    Difference(
        "Tensor.scatter",
        "this, scatter_add and scatter_reduce count negative indices from the end; of places that "
        "come twice the last stays, and gets the gradient; src may be larger than index",
        "as x[index] = value; PyTorch leaves it open, and differentiates where shapes are equal",
    ),
    Difference(
        "Tensor.scatter_reduce",
        "with include_self=False what is overwritten takes no share of the gradient of amax, amin",
        "in PyTorch it does where it equals the result, and the share is lost",
    ),
    Difference(
        "Tensor.median",
        "of equal elements the first in order is taken, and gets the gradient",
        "one order on every device",
    ),
    Difference("Tensor.unique", "is always sorted", "one order on every device"),
    Difference(
        "Tensor.nonzero",
        "this and unique are errors in a compiled function, as is repeat_interleave by a Tensor "
        "without output_size",
        "the shape of the result depends on data",
    ),
    Difference(
        "tx.bernoulli",
        "probabilities, and the weights of multinomial, are not checked in a compiled function",
        "it would have to wait for them",
    ),
    Difference(
        "Tensor.register_hook",
        "in a compiled function the hook is traced: what it does beside giving a gradient happens "
        "once",
        "as everything else in it",
    ),
    Difference("autograd.grad", "is_grads_batched is refused", "there is no vmap"),
    Difference("Tensor.sort", "this and argsort are always stable", "one order on every device"),
    Difference(
        "F.scaled_dot_product_attention",
        "a row that a boolean mask leaves no key is 0; a mask and is_causal may be joined; "
        "`bounds` is more",
        "such rows are padding, and a NaN in them would spread",
    ),
    Difference(
        "F.mse_loss",
        "shapes must be equal, as of l1_loss, smooth_l1_loss and huber_loss",
        "PyTorch warns and broadcasts",
    ),
    Difference(
        "F.binary_cross_entropy",
        "of an input outside 0 to 1 the loss is NaN",
        "PyTorch looks at all values first and raises",
    ),
    Difference(
        "F.kl_div",
        "the gradient of a target that is 0 is -input, not NaN",
        "0 log 0 counts as 0, and changes with nothing",
    ),
    Difference(
        "F.conv1d",
        "this and the other convolutions take floats only",
        "a change of dtype is written down",
    ),
    Difference(
        "F.max_pool2d",
        "this, max_pool1d and their layers refuse return_indices",
        "a gradient needs none; places are found by comparing with the result",
    ),
    Difference(
        "F.interpolate",
        "mode is nearest, nearest-exact, linear or bilinear; antialias is refused",
        "area is avg_pool2d where sizes divide; bicubic is not there",
    ),
    Difference(
        "F.one_hot",
        "the first parameter is called input, as PyTorch's own call has it, not tensor, as its "
        "documentation says; int32 is an index, too; num_classes=-1 is not possible in a compiled "
        "function",
        "its shape would depend on data",
        ("tensor", "input", "num_classes"),
    ),
    Difference("nn.LSTM", "proj_size is refused", "a Linear maps the outputs"),
    Difference(
        "nn.utils.clip_grad_norm_",
        "is in tx.optim, as clip_grad_value_ is; gradients without a finite norm stay as they are",
        "the optimizer then skips the step",
    ),
    Difference(
        "optim.Adam",
        "all optimizers skip a step whose gradients are not finite",
        "one bad batch does not end a run",
    ),
    Difference(
        "optim.lr_scheduler.StepLR",
        "every schedule but ReduceLROnPlateau is a function of its count: an lr set by hand counts "
        "until the next step(); state_dict() is flat, as an optimizer's",
        "a compiled step computes the lr, and is not traced again",
    ),
    Difference(
        "optim.lr_scheduler.LambdaLR",
        "in a compiled function the epoch is a Tensor",
        "the function is traced once",
    ),
    Difference(
        "optim.lr_scheduler.OneCycleLR",
        "after total_steps the lr stays; the momentum of the moment is param_groups[i].momentum, a "
        "Tensor",
        "a compiled step cannot raise; an option that changes would have it traced again",
    ),
    Difference(
        "optim.SGD.state_dict",
        "state_dict() of an optimizer is flat: names and Tensors; of the options, lr alone is in "
        "it; param_groups and their params are tuples",
        "so that tx.save takes it; the program says the other options, and what is learnt",
    ),
]


def table() -> str:
    """The list as a table in Markdown."""
    rows = (f"| `{d.name}` | {d.what} | {d.why} |" for d in DIFFERENCES)
    return "| name | here | why |\n|---|---|---|\n" + "\n".join(rows) + "\n"
