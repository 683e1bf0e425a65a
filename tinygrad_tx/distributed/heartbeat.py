"""The heartbeat of a rank: it says every few seconds that it is there, and ends this process when
the job's monitor says so, or is not heard of any more. In: the communicator. Out: nothing; a thread
of its own does it, for a rank may be silent in MPI for minutes: while the first one validates, or
compiles. Called by launcher.py.

What ends the process does not ask MPI, which may be stuck: the launcher sees one rank end, and ends
those that are left.
"""

from __future__ import annotations

import os
import platform
import select
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import numpy as np

from .. import settings
from ..errors import UserError
from . import monitor
from .communicator import Communicator
from .monitor import BEAT, BYE, END, SAID, interval

DIED = 75  # the exit code of a rank that ends because another one has died
_LIMIT = 15.0  # seconds


def limit() -> float:
    """The seconds of silence after which a rank counts as ended, of TX_RANK_TIMEOUT; 0: none do."""
    text = settings.get("TX_RANK_TIMEOUT")
    if not text:
        return _LIMIT
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6 or 0 < found < 1:
        raise UserError(
            f"TX_RANK_TIMEOUT is {text!r}; it must be seconds, 1 or more, or 0 to watch no rank"
        )
    return found


class Heartbeat:
    """Of this rank, from begin() on."""

    def __init__(self, ranks: Communicator, limit: float) -> None:
        self._ranks, self._limit = ranks, limit
        self._note = ""
        self._speaks = False  # whether it is this rank that tells of a lost monitor on its machine
        self._leaving = False
        self._host = ""  # the monitor's
        self._far = False  # whether that is another machine
        self._connection: socket.socket | None = None

    def begin(self) -> None:
        """Have all ranks watched; all call it. Where one cannot reach the monitor, none are, and
        the first rank says so."""
        ranks = self._ranks
        own = "" if ranks.rank else settings.get("TX_MONITOR") or self._start()
        port, secret, there, self._host, *addresses = ranks.share(own).split(" ")
        here = monitor.machine()
        self._far = here != there
        if not self._far:
            addresses = ["127.0.0.1"]
        for address in addresses:
            if self._connect(address, int(port), secret, self._limit / 2 / len(addresses)):
                break
        mine = np.array([crc32(here.encode()), self._connection is not None], np.int64)
        machines, fine = ranks.all_gather(mine).T.tolist()
        self._speaks = machines.index(machines[ranks.rank]) == ranks.rank
        if not all(fine):
            if not ranks.rank:
                print(
                    f"tinygrad-tx: rank {fine.index(0)} cannot reach the job's monitor, port "
                    f"{port} on {self._host}: the job goes on without hearing of it when a rank "
                    "dies",
                    file=sys.stderr,
                    flush=True,
                )
            self.close()
            return
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def note(self, words: str) -> None:
        """What is said beside when a rank dies: what is saved, and how to go on."""
        self._note = words
        self._send(f"note {' '.join(words.splitlines())}\n".encode())

    def said(self) -> None:
        """This rank ends with an error that it has told: the others end without a word."""
        self._send(SAID)

    def leave(self) -> None:
        """This rank is about to end its process, which ends the connection."""
        self._leaving = True
        self._send(BYE)

    def close(self) -> None:
        """This rank is none any more."""
        self.leave()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Inside --------------------------------------------------------------------------------------
    def _start(self) -> str:
        """The address of a monitor that is a process of its own."""
        program = [sys.executable, "-I", "-S", str(Path(monitor.__file__)), str(self._ranks.size)]
        process = subprocess.Popen(
            [*program, str(self._limit)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # else it would be killed with this rank
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as out:
            return out.readline().strip()

    def _connect(self, host: str, port: int, secret: str, seconds: float) -> bool:
        try:
            made = socket.create_connection((host, port), timeout=seconds)
            hello = f"hello {secret} {self._ranks.rank} {platform.node()}\n"
            made.sendall(hello.encode())
            if made.recv(len(BEAT)) != BEAT:
                return False
        except OSError:
            return False
        made.setblocking(False)
        self._connection = made
        return True

    def _send(self, message: bytes) -> None:
        if self._connection is not None:
            monitor.send(self._connection, message)

    def _beat(self) -> None:
        connection = self._connection
        assert connection is not None
        every = interval(self._limit)
        missed, text = 0, b""
        while not self._leaving:
            self._send(BEAT)
            # Beats are counted, not seconds: this process may have stood still itself.
            ready, _, _ = select.select([connection], [], [], every)
            if not ready:
                missed += 1
                if missed > self._limit / every:
                    self._lost(f"has not answered for {self._limit:g} s")
                continue
            missed = 0
            try:
                got = connection.recv(4096)
            except OSError:
                got = b""
            text = text[-len(END) :] + got
            if END in text:
                os._exit(DIED)
            if not got and not self._leaving:
                self._lost("has ended")

    def _lost(self, how: str) -> None:
        """End without the monitor, whose machine may be out of reach."""
        ranks = self._ranks
        if self._speaks:
            who = f"rank {ranks.rank} of {ranks.size}, on {platform.node()}"
            note = f". {self._note}" if self._note else ""
            line = (
                f"tinygrad-tx: {who}: the job's monitor, on {self._host}, {how}; the job ends{note}"
            )
            with suppress(OSError):
                os.write(2, f"{line}\n".encode())
        if self._far:  # then the launcher's process here waits for that machine, too
            monitor.end_launcher(monitor.launchers_of(os.getpid()))
        os._exit(DIED)
