"""garbage: a pause of Python's search for cyclic garbage while a call is traced and planned.

A graph of tens of thousands of nodes is made, all of them alive, and the search would go through
them again and again for nothing: a quarter of the time. Called by compiled.py.
"""

from __future__ import annotations

import gc
import os
from threading import Lock


class Rest:
    """`with REST:` in however many threads: the search goes on, if it did before, when the last
    of them leaves."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if not self._inside:  # the child of a fork that was made inside
                return
            self._inside -= 1
            if not self._inside and self._was_on:
                gc.enable()

    def renew(self) -> None:
        """In the child of a fork: the parent's other threads are not there to leave."""
        self._lock = Lock()
        if self._inside and self._was_on:
            gc.enable()
        self._inside = 0


REST = Rest()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=REST.renew)
