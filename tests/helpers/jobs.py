"""Jobs of several ranks that are to die: started by mpiexec or by `tinygrad-tx launch`, and all
processes that come of them. Used by tests of distributed/."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason='mpi4py or mpiexec is missing: pip install "tinygrad_tx[mpi]"',
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="processes are found in /proc"
)
ROOT = Path(__file__).parents[2]
LIMIT = 30.0  # seconds within which nothing of a job is left


class Job:
    """A command and whatever it starts: all have a mark in their environment."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        own = {"JOB_MARK": self._mark, "TX_RANK_TIMEOUT": "3", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **own, **environment},
        )

    def environments(self) -> dict[int, bytes]:
        """That of each process that lives; one that is stopped does."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                text = path.read_bytes()
            except OSError:
                continue
            if f"JOB_MARK={self._mark}".encode() in text:
                found[int(path.parent.name)] = text
        return found

    def rank(self, number: int) -> int:
        """The process of a rank: the one that its launcher has started, which has no child with the
        same environment but the monitor."""
        wanted = f"PMI_RANK={number}".encode()
        found = [
            n
            for n, text in self.environments().items()
            if wanted in text.split(b"\0") and b"monitor.py" not in _command(n)
        ]
        assert len(found) == 1, found
        return found[0]

    def ended(self, limit: float = LIMIT) -> tuple[int, str, str]:
        """Its code, stdout and stderr, when nothing is left of it, within so many seconds."""
        end = time.monotonic() + limit
        out, err = self.process.communicate(timeout=limit)
        while left := self.environments():
            assert time.monotonic() < end, [(n, _command(n)) for n in left]
            time.sleep(0.05)
        return self.process.returncode, out, err


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def job(command: Sequence[str], **environment: str) -> Iterator[Job]:
    """A command, of which nothing is left in the end."""
    made = Job(command, environment)
    try:
        yield made
    finally:
        for number in made.environments():
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        made.process.wait()
        for pipe in (made.process.stdout, made.process.stderr):
            if pipe is not None:
                pipe.close()


def wait_for(path: Path, of: Job) -> None:
    """Return when a file has something in it, or a directory a checkpoint."""
    end = time.monotonic() + 90.0
    while not (any(path.glob("step-*")) if path.is_dir() else path.exists() and path.read_bytes()):
        assert of.process.poll() is None, of.process.communicate()
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.02)


def told(stderr: str) -> list[str]:
    """The lines that the job says in its own name."""
    return [line for line in stderr.splitlines() if line.startswith("tinygrad-tx: ")]


class Machines:
    """Two machines for the time of a `with` block: namespaces of this one, with a link between."""

    def __init__(self, directory: Path) -> None:
        self.names = f"txa{os.getpid()}", f"txb{os.getpid()}"
        self.addresses = "10.99.7.1", "10.99.7.2"
        self._login = directory / "login"

    def __enter__(self) -> Machines:
        try:
            self._make()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            said = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"two machines in network namespaces are refused here: {said.strip()}")
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            with suppress(OSError, subprocess.CalledProcessError):
                _ip("netns", "del", name)

    def _make(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
            subprocess.run(
                [*self._inside(name), "true"], check=True, capture_output=True, text=True
            )
        a, b = self.names
        _ip("link", "add", "tx0", "netns", a, "type", "veth", "peer", "name", "tx0", "netns", b)
        for name, address in zip(self.names, self.addresses, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "tx0")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "tx0", "up")
        where = "\n".join(
            f"{a}) name={n};;" for a, n in zip(self.addresses, self.names, strict=True)
        )
        self._login.write_text(
            f'#!/bin/sh\n[ "$1" = -x ] && shift\ncase $1 in\n{where}\nesac\nshift\n'
            'exec ip netns exec $name unshare --uts sh -c "hostname $name; exec $*"\n'
        )
        self._login.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """What has mpiexec log in to them."""
        return {"HYDRA_LAUNCHER": "ssh", "HYDRA_LAUNCHER_EXEC": str(self._login)}

    def on_first(self, *command: str) -> list[str]:
        """A command on the first of them."""
        return [*self._inside(self.names[0]), *command]

    def cut(self) -> None:
        """Cut the link."""
        _ip("-n", self.names[0], "link", "set", "tx0", "down")

    def _inside(self, name: str) -> list[str]:
        named = f'hostname {name}; exec "$@"'
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-ec", named, "-"]


def _ip(*given: str) -> None:
    subprocess.run(["ip", *given], check=True, capture_output=True, text=True)
