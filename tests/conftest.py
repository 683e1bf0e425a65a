"""What the tests marked `gpu` run on: a GPU, or one of the two stand-ins in tests/gpu."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHOSEN = pytest.StashKey[str]()

# `pytest -m quick`: some files of core, compiler and training, in some seconds.
QUICK = [
    HERE / "core" / "test_autograd.py",
    HERE / "compiler" / "test_rewrite.py",
    HERE / "compiler" / "test_lower.py",
    HERE / "compiler" / "test_plan_fingerprint.py",
    HERE / "compiler" / "test_compiled.py",
    HERE / "training" / "test_config.py",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu",
        choices=("auto", "device", "double", "cupy_on_cpu"),
        default="auto",
        help="what tests marked gpu run on: a GPU; the double of CuPy; the real CuPy on the CPU; "
        "auto (the default): a GPU if there is one, else the double",
    )
    parser.addoption(
        "--gpu-quick",
        action="store_true",
        help="on --gpu cupy_on_cpu: the op table in one dtype and one layout, for fewer kernels",
    )
    parser.addoption(
        "--on-gpu",
        action="store_true",
        help="the ordinary tests on what --gpu says: cuda is the default device; those marked cpu "
        "are left out",
    )


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the option
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A process for each core, up to four, where all tests run. `-n 0`: one for all of them; so it
    is for files or tests named on the command line, under --pdb, and without pytest-xdist."""
    if hasattr(config, "workerinput") or "PYTEST_XDIST_WORKER" in os.environ:
        return  # this is such a process, or a test in one has started it: none starts others
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    option = config.option
    if not everything or option.usepdb or option.collectonly:
        return
    if config.pluginmanager.hasplugin("xdist") and option.numprocesses is None:
        option.numprocesses, option.dist = min(os.cpu_count() or 1, 4), "worksteal"
        # Each has a core: threads of NumPy's own products would wait for each other's.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    _hear_signals()
    _keep_bytecode(config)
    chosen = config.getoption("--gpu")
    if chosen == "auto":
        chosen = "device" if _has_gpu() else "double"
    if chosen == "double":
        sys.path.insert(0, str(HERE / "gpu" / "double"))
    elif chosen == "cupy_on_cpu":
        importlib.import_module("cupy_on_cpu").install()
    config.stash[CHOSEN] = chosen


def _hear_signals() -> None:
    """Those that tests send, as in a terminal: in the background of a shell they are ignored."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def _keep_bytecode(config: pytest.Config) -> None:
    """Where the environment has Python write no bytecode, each of the hundreds of processes that
    tests start would compile the package again: these write it into a folder of this run."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = tempfile.mkdtemp(prefix="bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def _has_gpu() -> bool:
    """Whether there is a CuPy that finds a device; asked outside, for its modules would stay."""
    if find_spec("cupy") is None:
        return False
    code = "import cupy, sys; sys.exit(not cupy.cuda.runtime.getDeviceCount())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def pytest_report_header(config: pytest.Config) -> str:
    return f"gpu: {config.stash[CHOSEN]}"


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("--on-gpu"):  # before tests are imported, which make Tensors
        importlib.import_module("tinygrad_tx").set_default_device("cuda")


@pytest.fixture(autouse=True)
def on_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Under --on-gpu: the default device, and no error of a test's index for the next test."""
    yield
    if request.config.getoption("--on-gpu"):
        tx = importlib.import_module("tinygrad_tx")
        tx.set_default_device("cuda")
        with contextlib.suppress(IndexError):
            tx.backends.get("cuda").synchronize()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is not quick is not even read."""
    test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    quick = collection_path in QUICK
    return True if test and not quick and config.option.markexpr == "quick" else None


def pytest_collection_finish() -> None:
    """Python's collector does not look at the thousands of tests again and again."""
    gc.collect()
    gc.freeze()


def _thin_out(items: list[pytest.Item]) -> None:
    """Of a test marked one_in(n), all cases but one in n are slow ones; a hash chooses, so that no
    parameter decides alone."""
    cases: dict[object, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("one_in") and not item.get_closest_marker("slow"):
            cases.setdefault((item.parent, getattr(item, "originalname", item.name)), []).append(
                item
            )
    for some in cases.values():
        mark = some[0].get_closest_marker("one_in")
        assert mark is not None
        some.sort(key=lambda item: zlib.crc32(item.name.encode()))
        for item in some[-(-len(some) // mark.args[0]) :]:
            item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _thin_out(items)
    for item in items:
        if item.path in QUICK:
            item.add_marker(pytest.mark.quick)
        if config.getoption("--on-gpu") and item.get_closest_marker("cpu"):
            item.add_marker(pytest.mark.skip(reason="about the CPU"))
    if config.stash[CHOSEN] != "double":
        return
    from cupy import _raw

    if _raw.compiler() is None:
        reason = "the double of CuPy needs a C++ compiler (g++, clang++ or $CXX) for kernels"
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))
