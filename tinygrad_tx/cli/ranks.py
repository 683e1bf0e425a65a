"""The table of `tinygrad-tx plan --ranks`: a step of training on several ranks on paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..distributed.paper import Network
    from ..training.ranks import Share


def network(name: str, per_host: int = 1) -> Network:
    """The network of that name, between hosts of so many GPUs. UserError for an unknown one."""
    from ..distributed.paper import NETWORKS

    if name not in NETWORKS:
        raise UserError(f"network {name!r} is unknown here: the networks are {', '.join(NETWORKS)}")
    if per_host == 1:
        return NETWORKS[name]
    if name == "nvlink":
        raise UserError("--per-host is of hosts with a network between them: 10gbit or 100gbit")
    return NETWORKS[name]._replace(
        name=f"{name}, {per_host} ranks a host", per_host=per_host, within=NETWORKS["nvlink"]
    )


def show(title: str, found: Sequence[Share], on: Network) -> None:
    """Print a row for each number of ranks."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    heads = ("ranks", "rows", "compute ms", "sent MB", "sent ms", "exposed ms", "step ms")
    for name in (*heads, "tokens/s", "times one", "of ideal", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for share in found:
        c, times = share.cost, share.rate / found[0].rate * found[0].cost.ranks
        ms = (f"{1e3 * x:,.2f}" for x in (c.sent, c.exposed, c.seconds))
        table.add_row(
            *(
                f"{c.ranks:,}",
                f"{share.rows:,}",
                f"{1e3 * c.compute:,.2f}",
                f"{c.bytes / 1e6:,.1f}",
            ),
            *(*ms, f"{share.rate:,.0f}", f"{times:,.2f}", f"{times / c.ranks:.0%}"),
            f"{share.peak / 1e9:.2f} GB",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table, highlight=False, markup=False)
    for line in limits(found, on):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def limits(found: Sequence[Share], on: Network) -> list[str]:
    """What breaks first, in words."""
    said = []
    if exposed := next((s for s in found if s.cost.exposed > s.cost.compute), None):
        said.append(
            f"from {exposed.cost.ranks:,} ranks on, {on.name} takes longer than the processors: "
            f"{exposed.cost.exposed / exposed.cost.seconds:.0%} of a step is waiting"
        )
    if idle := next((s for s in found if s.idle), None):
        said.append(
            f"from {idle.cost.ranks:,} ranks on, some have no row of the batch: raise the batch "
            "(--weak: each rank has its own)"
        )
    return said


def described(found: Sequence[Share], on: Network) -> str:
    """Everything, as JSON; times in seconds."""
    rows: list[dict[str, Any]] = [
        {
            **share.cost._asdict(),
            "rows": share.rows,
            "idle": share.idle,
            "messages": share.messages,
            "tokens_per_second": share.rate,
            "peak_bytes": share.peak,
        }
        for share in found
    ]
    known = on._asdict()
    known["within"] = on.within and on.within.name
    return json.dumps({"network": known, "ranks": rows}, indent=1)
