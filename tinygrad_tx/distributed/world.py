"""The job that this process is a rank of. Set by launcher.py and local.py, read by the collective
ops, by api.py and by the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .communicator import Communicator
from .engine import Alone

if TYPE_CHECKING:
    from .heartbeat import Heartbeat


class _World:
    """host: between the ranks' memories. device: between their GPUs, where an engine does that;
    else their arrays go through the host. heartbeat: what has this rank watched."""

    host = Communicator(Alone())
    device: Communicator | None = None
    heartbeat: Heartbeat | None = None


def current() -> Communicator:
    """The ranks of this job; one that no launcher has started has one."""
    return _World.host


def for_device() -> Communicator | None:
    """The ranks as their GPUs see each other; None where arrays go through the host."""
    return _World.device


def heartbeat() -> Heartbeat | None:
    """What has this rank watched; None where nobody watches."""
    return _World.heartbeat


def enter(
    host: Communicator, device: Communicator | None = None, heartbeat: Heartbeat | None = None
) -> None:
    """This process is a rank of a job from now on."""
    _World.host, _World.device, _World.heartbeat = host, device, heartbeat


def note(words: str) -> None:
    """What is said beside when a rank dies."""
    if _World.heartbeat is not None:
        _World.heartbeat.note(words)


@contextmanager
def pretended(size: int) -> Iterator[None]:
    """Inside, this process is the last of so many ranks: for what is traced, and not run."""
    before, engine = (_World.host, _World.device, _World.heartbeat), Alone()
    engine.rank, engine.size = size - 1, size
    enter(Communicator(engine))
    try:
        yield
    finally:
        enter(*before)


def leave() -> None:
    """It is alone again."""
    if _World.heartbeat is not None:
        _World.heartbeat.close()
    for found in (_World.device, _World.host):
        if found is not None:
            found.close()
    enter(Communicator(Alone()))
