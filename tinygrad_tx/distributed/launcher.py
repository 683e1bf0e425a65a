"""The launcher: who has started this process, and as which rank. In: the environment that mpiexec,
srun and their like leave. Out: the job, entered. Called by `tinygrad-tx train`, and by users
(init_process_group).
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

from .. import settings
from ..errors import UserError
from . import world
from .communicator import Communicator

# The variables of a rank's number and of how many there are, by launcher. Slurm's are those of
# srun: a batch script that it runs by itself has the others of its kind, too.
_LAUNCHERS = {
    "mpiexec": ("PMI_RANK", "PMI_SIZE"),
    "Open MPI's mpiexec": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
}
_PATIENCE = 1.0  # seconds within which ranks fail together


class Launched(NamedTuple):
    """by: the launcher."""

    rank: int
    size: int
    by: str


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """The rank that a launcher has made of this process; None where none has, or for it alone."""
    for by, (rank, size) in _LAUNCHERS.items():
        found = environment.get(rank, ""), environment.get(size, "")
        if all(text.isdecimal() for text in found) and int(found[1]) > 1:
            return Launched(int(found[0]), int(found[1]), by)
    return None


def enter() -> Communicator:
    """Become a rank of the job, if a launcher has started one; the ranks there are, which is this
    process alone otherwise. A second call changes nothing.

    UserError where the launcher and MPI do not know each other. The threads of compiled functions
    are from now on the cores that this rank may use over the ranks that share them.
    """
    found = launched()
    if found is None or world.current().size > 1:
        return world.current()
    from ..backends.cpu.run import team
    from .heartbeat import Heartbeat, limit
    from .mpi import MPI

    patience = limit()
    engine = MPI()
    if engine.size != found.size:
        raise UserError(
            f"{found.by} has started {found.size} ranks, of which MPI sees {engine.size}: start "
            "them by the mpiexec of this environment, or under Slurm by srun --mpi=pmi2"
        )
    host = Communicator(engine)
    team.share_cores(engine.neighbours())
    heartbeat = Heartbeat(host, patience) if patience else None
    if heartbeat is not None:
        heartbeat.begin()
    world.enter(host, _direct(host) if settings.get("TX_NCCL") == "1" else None, heartbeat)
    atexit.register(_leave, host)
    before = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        before(kind, error, at)
        ended(f"{kind.__name__}: {error}")

    sys.excepthook = told
    return host


def _leave(host: Communicator) -> None:
    """End in order, which all ranks do together; watched while this one waits for the others."""
    host.engine.finish()
    host.close()
    heartbeat = world.heartbeat()
    if heartbeat is not None:
        heartbeat.leave()


def _direct(host: Communicator) -> Communicator:
    from .nccl import NCCL

    return Communicator(NCCL(host))


def ended(reason: str) -> str:
    """What is left to be said when a rank ends with an error: the reason, on the first rank, where
    all do in this moment; else it is said here, with the rank, and the others are ended too."""
    ranks = world.current()
    if ranks.size == 1 or not reason:
        return reason
    if ranks.engine.together(_PATIENCE):
        return "" if ranks.rank else reason
    said = f"rank {ranks.rank} of {ranks.size}, on {platform.node()}: {reason}"
    print(f"tinygrad-tx: {said}", file=sys.stderr, flush=True)
    if (heartbeat := world.heartbeat()) is not None:
        heartbeat.said()
    ranks.engine.abort(1)
    return ""
