"""A product and the row program that reads its elements as one kernel, for machines whose products
bring their operands together themselves.

In: the call of a Gemm, and a Body. Out: the call of a GemmEpilogue. Called by epilogues.py. An
element of the product goes from the sum's register into the program, and to memory only where
others read it.
"""

from __future__ import annotations

from ...backends.kernels.arguments import GemmArgs, GemmEpilogueArgs, RowProgramArgs
from ...backends.kernels.kinds import Gemm, GemmEpilogue, RowProgram
from ..fuse.body import Body
from .records import Call

LONGEST = 64  # instructions: a thread has many elements of a product, and registers for few


def is_elementwise(product: Call, group: Body) -> bool:
    """True if a row program is computed element by element, and reads the product's where it is
    itself, once."""
    args, out = product.args, product.writes[0]
    assert isinstance(args, GemmArgs) and isinstance(product.kernel, Gemm)
    if group.kind != "rows" or group.reduces or len(group.program.instrs) > LONGEST:
        return False
    if (group.rows, group.columns) != (args.b0 * args.b1 * args.m, args.n) or args.n == 1:
        return False
    if product.kernel.accumulate or any(i.op == "row" for i in group.program.instrs):
        return False
    own = [load for load in group.loads if load.view.buffer is out.buffer]
    shape = (group.rows, group.columns)
    whole, read = out.reshape(shape), own[0].view.reshape(shape) if len(own) == 1 else None
    if whole is None or read is None or not read.same(whole):
        return False
    return all(store.view.shape[-1] == group.columns for store in group.stores)


def fused(product: Call, group: Body, keeps: bool) -> Call:
    """The call of both. keeps: whether the product's own result is written, too."""
    made = group.call(rows_per_task=1)
    args, program = product.args, made.args
    assert isinstance(args, GemmArgs) and isinstance(program, RowProgramArgs)
    assert isinstance(product.kernel, Gemm) and isinstance(made.kernel, RowProgram)
    out = product.writes[0]
    number = next(i for i, v in enumerate(made.reads) if v.buffer is out.buffer)
    if not keeps:  # there is no memory for it: a place that is not looked at
        nowhere = made.writes[0].place
        args = args._replace(c=args.c._replace(place=nowhere))
        inputs = list(program.inputs)
        inputs[number] = inputs[number]._replace(place=nowhere)
        program = program._replace(inputs=tuple(inputs))
    kernel = GemmEpilogue(product.kernel, made.kernel, number, keeps)
    reads = [v for i, v in enumerate(made.reads) if i != number]
    writes = (*product.writes, *made.writes) if keeps else made.writes
    return Call(
        kernel,
        GemmEpilogueArgs(args, program),
        (*product.reads, *reads),
        writes,
        (*product.nodes, *made.nodes),
    )
