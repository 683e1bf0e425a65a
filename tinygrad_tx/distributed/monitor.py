"""The monitor of a job: hears of each rank every few seconds, says which one has ended or does not
answer, and ends the others. In: their connections. Out: one line, on stderr. Run by `tinygrad-tx
launch`, else as a program of its own that the first rank starts (heartbeat.py), for a launcher that
sees a rank end kills the others before they could say anything.

Loads nothing of this package, so that it is a small process. Messages are lines: of a rank `hello
SECRET RANK HOST`, `note WORDS` (what is said beside when a rank dies), `bye` (it ends in order),
`said` (it ends with an error that it has told); of the monitor `end`; of both `.`, a beat.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BEAT, BYE, END, SAID = b".\n", b"bye\n", b"end\n", b"said\n"
_LAST_WORD = 5.0  # seconds in which those who are told to end do
_MOST = 1 << 16  # bytes of a line
_LAUNCHERS = ("mpiexec", "mpirun", "hydra_pmi_proxy")


def interval(limit: float) -> float:
    """The seconds between two beats, for a silence of `limit` seconds to be an end."""
    return min(2.0, limit / 6)


@dataclass(eq=False)
class _Peer:
    """A connection, of a rank once it has said so. missed: beats that did not come."""

    socket: socket.socket
    rank: int = -1
    host: str = ""
    missed: int = 0
    text: bytes = field(default=b"", repr=False)


class Monitor:
    """Of `size` ranks. limit: seconds of silence after which one counts as ended. say: called with
    the line, once, if one does.

    died: the line. told: True if a rank has ended with an error that it has said itself.
    """

    def __init__(self, size: int, limit: float, say: Callable[[str], None]) -> None:
        self.died, self.told = "", False
        self._size, self._limit, self._say = size, limit, say
        self._every = interval(limit)
        self._peers: list[_Peer] = []
        self._here: dict[int, _Peer] = {}
        self._left: set[int] = set()
        self._late = 0  # beats since the first rank came, while some have not
        self._note = ""
        self._closed = False
        self._secret = secrets.token_hex(16)
        self._selector = selectors.DefaultSelector()
        self._server = socket.create_server(("", 0), backlog=max(size, 128))
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        _allow_files(size)

    @property
    def address(self) -> str:
        """What a rank must know to come: port, secret, machine, its name, and its addresses."""
        port = self._server.getsockname()[1]
        return " ".join([str(port), self._secret, machine(), socket.gethostname(), *_addresses()])

    def watch(self) -> None:
        """Return when all ranks have left, one has died and the others were told, or after
        close()."""
        due = time.monotonic() + self._every
        while not self._closed and not self._over():
            ended = self._look(max(due - time.monotonic(), 0.0))
            if time.monotonic() >= due:
                # Beats are counted, not seconds: of a time in which this process stood still,
                # nobody is accused.
                due = time.monotonic() + self._every
                self._beat()
            self._judge(ended)
        if self.died or self.told:
            self._end()

    def close(self) -> None:
        """Watch no longer; may be called by another thread."""
        self._closed = True

    # Inside --------------------------------------------------------------------------------------
    def _over(self) -> bool:
        gone = len(self._left) == self._size and not any(peer.rank >= 0 for peer in self._peers)
        return bool(self.died or self.told) or gone

    def _look(self, seconds: float) -> list[int]:
        """Read what has come; the ranks whose connections have ended, though they did not leave."""
        ended = []
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._server:
                with suppress(OSError):
                    self._accept()
                continue
            peer: _Peer = key.data
            if not self._read(peer):
                self._forget(peer)
                if self._here.get(peer.rank) is peer and peer.rank not in self._left:
                    ended.append(peer.rank)
        return sorted(ended)

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        connection.setblocking(False)
        peer = _Peer(connection)
        self._peers.append(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _forget(self, peer: _Peer) -> None:
        self._peers.remove(peer)
        self._selector.unregister(peer.socket)
        peer.socket.close()

    def _read(self, peer: _Peer) -> bool:
        """False at the end of a connection."""
        try:
            got = peer.socket.recv(_MOST)
        except BlockingIOError:
            return True
        except OSError:
            return False
        peer.missed = 0
        *lines, peer.text = (peer.text + got).split(b"\n")
        for line in lines:
            if not self._heard(peer, line.decode(errors="replace")):
                return False
        return bool(got) and len(peer.text) < _MOST

    def _heard(self, peer: _Peer, line: str) -> bool:
        """Do as a line says; False if a stranger says it."""
        word, _, rest = line.partition(" ")
        if peer.rank < 0:
            secret, _, who = rest.partition(" ")
            rank, _, host = who.partition(" ")
            if word != "hello" or not secrets.compare_digest(
                secret.encode(), self._secret.encode()
            ):
                return False
            peer.rank, peer.host = int(rank), host
            self._here[peer.rank] = peer
            self._left.discard(peer.rank)
            send(peer.socket, BEAT)
        elif word == "bye":
            self._left.add(peer.rank)
        elif word == "said":
            self.told = True
        elif word == "note":
            self._note = rest
        return True

    def _beat(self) -> None:
        for peer in self._peers:
            send(peer.socket, BEAT)
            peer.missed += 1
        self._late += bool(self._here) and len(self._here) < self._size

    def _judge(self, ended: list[int]) -> None:
        """See whether a rank has died; then say so."""
        if self.told or self._over():
            return
        if ended:
            self._die(ended, "has ended", "have ended")
            return
        beats = self._limit / self._every
        # One that has left sends no beats, but its connection must end.
        silent = [peer.rank for peer in self._peers if peer.rank >= 0 and peer.missed > beats]
        if self._late > beats:
            silent += [rank for rank in range(self._size) if rank not in self._here]
        if silent:
            said = f"not answered for {self._limit:g} s"
            self._die(sorted(silent), f"has {said}", f"have {said}")

    def _die(self, ranks: list[int], one: str, several: str) -> None:
        hosts = list(dict.fromkeys(self._here[r].host for r in ranks if r in self._here))
        where = f", on {' and '.join(hosts)}," if hosts else ""
        who = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {_listed(ranks)}"
        what = one if len(ranks) == 1 else several
        note = f"; {self._note}" if self._note else ""
        self.died = f"{who} of {self._size}{where} {what}; the job ends{note}"
        for peer in [p for p in self._peers if p.rank in ranks]:
            self._forget(peer)
        self._say(self.died)

    def _end(self) -> None:
        """Tell all that are there to end, and wait for them a little."""
        for peer in self._peers:
            send(peer.socket, END)
        end = time.monotonic() + _LAST_WORD
        while self._peers and not self._closed and time.monotonic() < end:
            self._look(0.2)


def _listed(ranks: list[int]) -> str:
    shown = [str(rank) for rank in ranks[:8]] + (["others"] if len(ranks) > 8 else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]])


def send(to: socket.socket, message: bytes) -> None:
    """Send a few bytes, if that is possible at once."""
    with suppress(OSError):  # that it has ended, or does not read, is seen otherwise
        to.send(message)


def machine() -> str:
    """What tells this machine from others: its boot, and its network."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return boot + _network("self")
    except OSError:
        return socket.gethostname()


def _network(process: int | str) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return ""


def _addresses() -> list[str]:
    """Those by which other machines may reach this one, without a promise for each."""
    found = []
    with suppress(ImportError, OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        import fcntl

        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                asked = struct.pack("256s", name.encode()[:15])
                found.append(
                    socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, asked)[20:24])
                )  # SIOCGIFADDR
    with suppress(OSError):
        found += socket.gethostbyname_ex(socket.gethostname())[2]
    return list(dict.fromkeys(a for a in found if not a.startswith("127.")))


def _allow_files(size: int) -> None:
    """As many connections as there are ranks, if the system lets us."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = size + 64
        if 0 <= soft < wanted:
            most = wanted if hard < 0 else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# As a program ------------------------------------------------------------------------------------
def _process(number: int) -> tuple[str, int]:
    """The name of a process's program, and its parent; ("", 0) where there is none, or it cannot
    be known."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return "", 0
    name, _, rest = text.partition("(")[2].rpartition(")")
    state, parent, *_ = rest.split()
    return ("", 0) if state == "Z" else (name, int(parent))


def launchers_of(process: int) -> dict[int, str]:
    """The processes of the launcher above a rank, on this machine, by number, the nearest first."""
    found: dict[int, str] = {}
    above = _process(process)[1]
    name = _process(above)[0]
    while name.startswith(_LAUNCHERS) and _network(above) == _network("self"):
        found[above] = name
        above = _process(above)[1]
        name = _process(above)[0]
    return found


def end_launcher(launchers: Mapping[int, str]) -> None:
    """Kill a rank's launcher, and before it what it has started on this machine: a rank that is
    stopped would be left."""
    still = {n for n, name in launchers.items() if _process(n)[0] == name}
    every = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    started = {n for n in every if _process(n)[1] in still and _network(n) == _network("self")}
    for number in (*(started - still - {os.getpid()}), *still):
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)


def session(leader: int) -> list[int]:
    """The processes of a session, those alone whose leader this process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(path.name))
    return found


class Stderr:
    """The launcher's, written to by its own name: what it would read of this process, it no longer
    reads when it ends the job. A file is written to when the launcher is done with it."""

    def __init__(self, launcher: int | None) -> None:
        self._kept, self.waits = b"", False
        with suppress(OSError):
            if launcher is not None:
                handle = os.open(f"/proc/{launcher}/fd/2", os.O_WRONLY | os.O_APPEND)
                os.dup2(handle, 2)  # and it does not wait for the end of a pipe to here
                os.close(handle)
                self.waits = stat.S_ISREG(os.fstat(2).st_mode)

    def say(self, line: str) -> None:
        """Write a line, now or by close()."""
        self._kept = f"tinygrad-tx: {line}\n".encode()
        if not self.waits:
            self.close()

    def close(self) -> None:
        """Write what is left."""
        text, self._kept = self._kept, b""
        with suppress(OSError):
            os.write(2, text)


def _main(size: int, limit: float) -> None:
    """Watch for the first rank, which is the parent; the address goes to stdout."""
    first = os.getppid()
    launchers = launchers_of(first)
    stderr = Stderr(next(reversed(launchers), None))
    monitor = Monitor(size, limit, stderr.say)
    os.write(1, f"{monitor.address}\n".encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    monitor.watch()
    if not monitor.died:
        return

    def left() -> list[int]:
        rank = [first] if os.getppid() == first else []
        return rank + [n for n, name in launchers.items() if _process(n)[0] == name]

    if not stderr.waits:
        os.dup2(1, 2)  # who reads it need not wait for this process
    # A launcher that waits for a machine which does not answer waits for long.
    end = time.monotonic() + _LAST_WORD
    while left() and time.monotonic() < end:
        time.sleep(0.05)
    if os.getppid() == first:
        os.kill(first, signal.SIGKILL)
    end_launcher(launchers)
    stderr.close()


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]))
