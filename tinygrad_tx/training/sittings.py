"""Sittings: when, where and by which command a run was at work. In: a run that begins or goes on.
Out: a line of sittings.jsonl for each time. Written by the recorder, shown by the report.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import backends
from ..backends.cpu import host
from ..creation import get_default_device
from ..version import __version__


def sitting(step: int, command: str | None, parameters: int) -> dict[str, Any]:
    """The sitting that begins now, after `step`. command: the command line; None: that of this
    process. parameters: of the model."""
    import numpy as np

    program = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "step": step,
        "date": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "command": command or shlex.join(program),
        "directory": _here(),
        "parameters": parameters,
        "machine": machine(),
        "versions": {
            "tinygrad_tx": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def machine() -> dict[str, str]:
    """This machine, in words."""
    device = get_default_device()
    found = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": host.described(),
    }
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory"] = f"{size / 2**30:.1f} GiB"
    found["device"] = f"{device} ({type(backends.get(device)).__name__})"
    return found


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""
