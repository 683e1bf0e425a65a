"""A job: the ranks of one command, which the launcher of this environment starts, watched by this
process. In: a command. Out: how it has ended. Called by `tinygrad-tx launch`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from ..errors import UserError
from .heartbeat import DIED, limit
from .monitor import Monitor, session

_PATIENCE = 6.0  # seconds in which a launcher ends when its ranks do
_KNOWN = (0, 1, 2)  # codes of commands that have said what is wrong


class Ended(NamedTuple):
    """code: the launcher's exit code. died: what has died, in words; empty where nothing has. said:
    whether the user has been told. asked: whether a signal has asked for the end."""

    code: int
    died: str
    said: bool
    asked: bool


def mpiexec() -> str:
    """The launcher beside this Python, or that of the path. UserError where there is none."""
    beside = Path(sys.executable).parent
    found = shutil.which("mpiexec", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise UserError(
            'no mpiexec is here, which starts the ranks: pip install "tinygrad_tx[mpi]"'
        )
    return found


def placed(ranks: int, hosts: Sequence[str]) -> list[str]:
    """The launcher's options for so many ranks on these machines, on this one without any."""
    where = ["-hosts", ",".join(hosts), "-ppn", str(-(-ranks // len(hosts)))] if hosts else []
    return [*where, "-n", str(ranks)]


def answers(host: str, seconds: float = 20.0) -> bool:
    """True if the launcher can start something on a machine."""
    command = [mpiexec(), *placed(1, [host]), sys.executable, "-S", "-c", ""]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        _kill(process)


def run(
    ranks: int,
    hosts: Sequence[str],
    command: Sequence[str],
    say: Callable[[str], None],
    environment: Mapping[str, str],
) -> Ended:
    """Run a command as so many ranks, to its end. say: called with a line if a rank dies.

    Ctrl-C, SIGTERM and SIGHUP go to the ranks, once each time that they come.
    """
    patience = limit()
    monitor = Monitor(ranks, patience, say) if patience else None
    own = {"TX_MONITOR": monitor.address} if monitor is not None else {}
    process = subprocess.Popen(
        [mpiexec(), *placed(ranks, hosts), *command],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C comes from here alone
        env={**os.environ, **environment, **own},
    )
    watching = threading.Thread(target=monitor.watch if monitor else int, daemon=True)
    watching.start()
    asked: list[int] = []
    with _forwarded(process, asked):
        try:
            code = _code(process, watching if monitor else None)
        finally:
            _kill(process)
    watching.join(1.0)  # it hears of the end as we do
    if monitor is None:
        return Ended(code, _death(code), False, bool(asked))
    monitor.close()
    died = monitor.died or ("" if monitor.told else _death(code))
    return Ended(code or (DIED if died else 0), died, bool(monitor.died), bool(asked))


def _death(code: int) -> str:
    if code in (*_KNOWN, 128 + signal.SIGINT):
        return ""
    return f"the job has ended with code {code}"


def _code(process: subprocess.Popen[bytes], watching: threading.Thread | None) -> int:
    """The exit code of the launcher, which gets a moment to end when the watch has ended."""
    while True:
        over = watching is not None and not watching.is_alive()
        try:
            code = process.wait(_PATIENCE if over else 0.1)
            return 128 - code if code < 0 else code
        except subprocess.TimeoutExpired:
            if over:
                _kill(process)


@contextmanager
def _forwarded(process: subprocess.Popen[bytes], asked: list[int]) -> Iterator[None]:
    """Signals that end a program go to the launcher, as the one which it hands on."""

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        with suppress(OSError):
            process.send_signal(signal.SIGINT)

    known = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    if threading.current_thread() is not threading.main_thread():
        known = []
    before = {n: signal.signal(n, forward) for n in known if n is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a launcher and of all that it has started here."""
    for number in session(process.pid):
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)
    with suppress(OSError):
        process.kill()
    process.wait()
