"""The plan of a row program: its loops over the columns, and the values kept between them.

In: a RowProgram kernel. Out: a RowPlan. Called by the writers of row programs (cpu/rows, gpu).

The level of a value is the number of reductions that must be over before it can be computed; the
loop of level n computes what the reductions of that level need. Cheap per-element values are
computed again in every loop that needs them, others kept in scratch memory. All per-element outputs
are stored in the last loop that reads an input, so an output may alias an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ..kernels.instructions import REDUCTIONS, Instr, cost
from ..kernels.kinds import RowProgram, per_row

_KEEP_ABOVE = 6  # what it may cost to compute a value again; keeping it costs some 3
_HEAVY = 4  # what costs more is written once in a loop


@dataclass
class Loop:
    """One loop over the columns."""

    level: int
    reductions: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)  # places in kernel.outputs
    keeps: list[int] = field(default_factory=list)  # written to scratch here
    elements: list[int] = field(default_factory=list)  # computed or read back here, in order
    heavy: bool = False  # has a transcendental function


@dataclass
class RowPlan:
    rowwise: list[bool]
    levels: list[int]  # of each instruction
    loops: list[Loop]  # in the order in which they run
    kept: dict[int, int]  # instruction: level of the loop that keeps it


@lru_cache(maxsize=1024)
def plan(kernel: RowProgram, keeps: bool = True) -> RowPlan:
    """The plan of a kernel, which is not to be changed. keeps: False where every loop computes all
    of its values again."""
    rowwise = per_row(kernel.inputs, kernel.instrs)
    levels = _levels(kernel.instrs)
    loops: dict[int, Loop] = {}
    for i, instr in enumerate(kernel.instrs):
        if instr.op in REDUCTIONS:
            level = levels[instr.args[0]]
            loops.setdefault(level, Loop(level)).reductions.append(i)
    written = [k for k, output in enumerate(kernel.outputs) if output.column != "same"]
    if written:
        last = max([*loops, *(levels[kernel.outputs[k].instr] for k in written)])
        loops.setdefault(last, Loop(last)).outputs.extend(written)
    made = RowPlan(rowwise, levels, [loops[level] for level in sorted(loops)], {})
    _keep(kernel, made, keeps)
    return made


def _roots(kernel: RowProgram, loop: Loop) -> list[int]:
    """The per-element values that a loop needs: arguments of its reductions, and its outputs."""
    reduced = [kernel.instrs[i].args[0] for i in loop.reductions]
    return reduced + [kernel.outputs[k].instr for k in loop.outputs]


def _levels(instrs: Sequence[Instr]) -> list[int]:
    levels: list[int] = []
    for instr in instrs:
        below = max((levels[a] for a in instr.args), default=0)
        levels.append(below + (instr.op in REDUCTIONS))
    return levels


def _keep(kernel: RowProgram, made: RowPlan, keeps: bool) -> None:
    """Decide which values are kept, and list for each loop the elements that it computes."""
    first: dict[int, Loop] = {}  # where an element value is computed first

    def again(i: int) -> int:
        """The cost of computing a per-element value from values in memory."""
        seen: set[int] = set()
        total, waiting = 0, [i]
        while waiting:
            j = waiting.pop()
            if j in seen or made.rowwise[j]:
                continue
            seen.add(j)
            total += 1 if j in made.kept else cost(kernel.instrs[j].op)
            waiting.extend(() if j in made.kept else kernel.instrs[j].args)
        return total

    for loop in made.loops:
        seen: set[int] = set()
        waiting = _roots(kernel, loop)
        while waiting:
            i = waiting.pop()
            if i in seen or made.rowwise[i]:
                continue
            seen.add(i)
            before = first.setdefault(i, loop)
            costly = before is not loop and i not in made.kept and again(i) > _KEEP_ABOVE
            if keeps and costly:
                made.kept[i] = before.level
                before.keeps.append(i)
            if i in made.kept and made.kept[i] < loop.level:
                continue
            loop.heavy |= cost(kernel.instrs[i].op) > _HEAVY
            waiting.extend(kernel.instrs[i].args)
        loop.elements = sorted(seen)
