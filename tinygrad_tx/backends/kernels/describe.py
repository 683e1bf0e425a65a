"""A kernel as a few readable lines: what explain() and TX_DEBUG=4 print.

In: a Kernel. Out: text. A row program is shown as the nest of loops that it stands for:
row-invariant values, and the passes over the row's columns, each of which ends in reductions or
stores. Loads and stores name their operand by its number, as %3 names instruction 3.
"""

from __future__ import annotations

from .instructions import REDUCTIONS, Instr
from .kinds import (
    Attention,
    AttentionGrad,
    AttentionKeyGrad,
    AttentionQueryGrad,
    CheckIndex,
    ColumnReduce,
    DropoutMask,
    Gemm,
    GemmEpilogue,
    Kernel,
    Matmul,
    Opaque,
    Output,
    Pack,
    RowProgram,
    ScatterAdd,
    Weighted,
    per_row,
)


def describe(kernel: Kernel) -> str:
    """The listing of a kernel, without a newline at its end."""
    match kernel:
        case RowProgram():
            return "\n".join((_head("rows", kernel), *_row_program(kernel)))
        case ColumnReduce():
            return "\n".join((_head("columns", kernel), *_column_reduce(kernel)))
        case Pack():
            return f"pack {kernel.dtype}{_packed(kernel)}: b in panels of {kernel.width} columns"
        case Matmul():
            c, a = (_in(d, kernel.dtype) for d in (kernel.out, kernel.left))
            way = "+=" if kernel.accumulate else "="
            return f"matmul {kernel.dtype}: c{c} {way} a{a} @ packed b"
        case Gemm():
            into = "" if kernel.out == kernel.dtype else f" in {kernel.out}"
            of = f"{kernel.dtype} as tf32" if kernel.tf32 else kernel.dtype
            return f"gemm {of}: c{into} {'+=' if kernel.accumulate else '='} a @ b"
        case GemmEpilogue():
            kept = ", which is kept" * kernel.keep
            head = f"{describe(kernel.product)}; of c{kept}, input {kernel.c} of"
            return f"{head}\n{describe(kernel.program)}"
        case Attention():
            kept = ", statistics" * kernel.statistics
            return f"attention {kernel.dtype}{_stored(kernel)}: out{kept} = {_softmax(kernel)} @ v"
        case AttentionGrad():
            of = "dq, dk, dv, dmask" if kernel.dmask else "dq, dk, dv"
            return f"attention_grad {kernel.dtype}{_stored(kernel)}: {of} of {_softmax(kernel)} @ v"
        case AttentionQueryGrad():
            of = "dq, dmask" if kernel.dmask else "dq"
            form = f"{kernel.dtype}{_stored(kernel)}"
            return f"attention_query_grad {form}: {of} of {_softmax(kernel)} @ v"
        case AttentionKeyGrad():
            form = f"{kernel.dtype}{_stored(kernel)}"
            return f"attention_key_grad {form}: dk, dv of {_softmax(kernel)} @ v"
        case DropoutMask():
            return f"keep: philox >> 8 >= {kernel.threshold}" + ", of a part" * kernel.part
        case CheckIndex():
            notes = ", negative ones from the end" * kernel.wrap + ", one skipped" * kernel.skip
            return f"index {kernel.dtype}: checked{notes}"
        case ScatterAdd():
            return f"scatter_add {kernel.dtype}: out[index[i]] += value[i]"
        case Opaque():
            return f"opaque: {kernel.name}"
    raise TypeError(f"no description of {type(kernel).__name__}")


def _head(name: str, kernel: RowProgram | ColumnReduce) -> str:
    inputs = ", ".join(f"{i.dtype} {i.column}" for i in kernel.inputs) or "nothing"
    return f"{name} over {kernel.outer} outer axes of {inputs}"


def _row_program(kernel: RowProgram) -> list[str]:
    """for each row: values known before any pass, a pass over its columns, and so on."""
    once = per_row(kernel.inputs, kernel.instrs)
    levels: dict[tuple[int, bool], list[str]] = {}  # by passes ended before, and whether once a row
    known: list[int] = []  # for each instruction, how many passes end before its value is there
    for i, instr in enumerate(kernel.instrs):
        start = max((known[a] for a in instr.args), default=0)
        folds = instr.op in REDUCTIONS
        known.append(start + folds)
        levels.setdefault((start, once[i] and not folds), []).append(_instruction(i, instr))
        stores = [_store(n, o) for n, o in enumerate(kernel.outputs) if o.instr == i]
        levels.setdefault((known[i], once[i]), []).extend(stores)
    lines = ["for each row:"]
    for turn in range(max(known, default=0) + 1):
        lines += ["    " + line for line in levels.get((turn, True), ())]
        if inner := levels.get((turn, False)):
            lines += ["    for each column:", *("        " + line for line in inner)]
    return lines


def _column_reduce(kernel: ColumnReduce) -> list[str]:
    """for each column: a pass over the rows, then the stores."""
    lines = ["for each column:", "    for each row:"]
    lines += [f"        {_instruction(i, instr)}" for i, instr in enumerate(kernel.instrs)]
    return lines + [f"    {_store(n, o)}" for n, o in enumerate(kernel.outputs)]


def _instruction(number: int, instr: Instr) -> str:
    """`%3 float32 = mul %1 %2`"""
    args = [f"%{a}" for a in instr.args]
    if instr.op in ("load", "gather"):
        args.insert(0, f"input {instr.value}")
    elif instr.op == "const":
        args.append(repr(instr.value))
    return " ".join((f"%{number} {instr.dtype} = {instr.op}", *args))


def _store(number: int, output: Output) -> str:
    place = f" at input {output.at}" if output.at >= 0 else ""
    return f"store %{output.instr} -> output {number}{place}"


def _in(stored: str, dtype: str) -> str:
    """The dtype in memory, where it is not the one that is computed in."""
    return "" if stored == dtype else f" (in {stored})"


def _packed(kernel: Pack) -> str:
    rounded = f", rounded to {kernel.rounded}" if kernel.rounded else ""
    return f"{_in(kernel.source, kernel.dtype)}{rounded}"


def _stored(kernel: Weighted) -> str:
    """The dtype in memory, where it is not the one that is computed in; what is multiplied."""
    if not isinstance(kernel, AttentionGrad) and kernel.tf32:
        return " as tf32"
    return "" if kernel.stored == kernel.dtype else f" (in {kernel.stored})"


def _softmax(kernel: Weighted) -> str:
    scores = f"{kernel.scale:g} q k^T"
    if kernel.mask == "float":
        scores += " + mask"
    limits = ["mask"] * (kernel.mask == "bool") + ["key <= query"] * kernel.causal
    limits += ["first <= key < end"] * (kernel.mask == "bounds")
    weights = f"softmax({scores}{' where ' + ' and '.join(limits) if limits else ''})"
    if not isinstance(kernel, AttentionGrad) and kernel.dropout:
        return f"dropout({weights}, {kernel.dropout:g})"
    return weights
