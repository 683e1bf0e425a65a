"""Compiling, loading, and the cache of object code on disk."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from library_case import AddTo, value, write

from tinygrad_tx.backends import store
from tinygrad_tx.backends.cpu import jit, library, writers
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels.kinds import Kernel, Opaque
from tinygrad_tx.backends.llvm import engine, ir

pytest.importorskip("llvmlite")

ROOT = Path(__file__).parents[2]


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing is loaded, nothing counted."""
    monkeypatch.setattr(library, "_loaded", {})
    counts = {"compiled": 0, "disk_hits": 0, "memory_hits": 0, "seconds": 0.0}
    monkeypatch.setattr(library, "_stats", counts)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of an empty cache."""
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(library, "render", write)
    forget(monkeypatch)
    yield tmp_path / "kernels"


def files(place: Path) -> list[Path]:
    return sorted(place.iterdir())


def counts() -> tuple[float, float, float]:
    found = library.stats()
    return found["compiled"], found["disk_hits"], found["memory_hits"]


def test_memory_then_disk_then_compiling(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = AddTo(1.0), AddTo(2.0)
    found = library.functions([one, two, one])
    assert [value(found[k]) for k in (one, two)] == [1, 2]
    assert counts() == (2, 0, 1)
    assert library.functions([two]) == {two: found[two]} and counts() == (2, 0, 2)
    forget(monkeypatch)
    found = library.functions([AddTo(1.0), AddTo(2.0), AddTo(3.0)])
    assert [value(found[AddTo(v)]) for v in (1.0, 2.0, 3.0)] == [1, 2, 3]
    assert counts() == (1, 2, 0) and library.stats()["seconds"] > 0


def test_kernels_that_are_equal_but_not_the_same() -> None:
    """0.0 equals -0.0; adding them to -0.0 does not."""
    zeros = [library.functions([AddTo(v)])[AddTo(v)] for v in (0.0, -0.0)]
    assert zeros[0] != zeros[1]


def test_code_depends_on_target_and_source(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = jit.host_target()
    other = Processor("plain", 16, host.triple, host.cpu, "-sse3")
    for target in (host, other, host):
        assert value(library.functions([AddTo(5.0)], target)[AddTo(5.0)]) == 5
    assert counts() == (2, 0, 1)
    forget(monkeypatch)
    monkeypatch.setattr(store, "sources", lambda *rooms: "another version")
    library.functions([AddTo(5.0)])
    assert counts() == (1, 0, 0) and len(files(place)) == 3


def test_only_the_owner_may_read(place: Path) -> None:
    library.functions([AddTo(1.0)])
    assert place.stat().st_mode & 0o777 == 0o700
    assert [f.stat().st_mode & 0o777 for f in files(place)] == [0o600]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "header"])
def test_damaged_files_are_made_again(
    place: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.functions([AddTo(4.0)])
    (file,) = files(place)
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes(
        {
            "cut": whole[:-1],
            "empty": b"",
            "flipped": flipped,
            "foreign": b"not object code at all" * 100,
            "header": whole[: len(store.HEADER) + 10],
        }[damage]
    )
    forget(monkeypatch)
    assert value(library.functions([AddTo(4.0)])[AddTo(4.0)]) == 4
    assert counts() == (1, 0, 0) and file.read_bytes() == whole


def test_directory_that_cannot_be_trusted(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.mkdir()
    place.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        for v in (1.0, 2.0):
            assert value(library.functions([AddTo(v)])[AddTo(v)]) == v
    assert [r.message for r in caplog.records] == [
        f"compiled kernels are not kept on disk: {place}: others may write to it; "
        "chmod 700 would help"
    ]
    assert not files(place) and store.cache_info() == (None, 0, 0) and store.clear_cache() == 0


def test_directory_that_cannot_be_made(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file")
    assert value(library.functions([AddTo(1.0)])[AddTo(1.0)]) == 1
    assert "File exists" in caplog.text
    monkeypatch.setattr(os, "getuid", lambda: -1)
    monkeypatch.setenv("TX_CACHE_DIR", str(place.parent))
    assert store.cache_info().path is None
    assert "belongs to somebody else" in caplog.text


def test_where_the_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_info().path == tmp_path / "xdg" / "tinygrad_tx"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_info().path == tmp_path / ".cache" / "tinygrad_tx"


def test_a_disk_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    assert value(library.functions([AddTo(1.0)])[AddTo(1.0)]) == 1
    monkeypatch.undo()
    assert not files(place)


def test_what_was_not_used_for_longest_goes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = [AddTo(i + 0.1) for i in range(4)]
    for i, kernel in enumerate(kernels[:3]):
        before = set(files(place)) if place.exists() else set()
        library.functions([kernel])
        (new,) = set(files(place)) - before
        os.utime(new, (i, i))
    size = new.stat().st_size
    abandoned, foreign = place / f".{'0' * 16}.tmp", place / "notes.txt"
    for file in (abandoned, foreign):
        file.write_text("x")
        os.utime(file, (5, 5))
    forget(monkeypatch)
    library.functions(kernels[:1])  # now the second is the one not used for longest
    monkeypatch.setattr(store, "LIMIT", 3 * size + size // 2)
    library.functions(kernels[3:])
    assert not abandoned.exists() and foreign.exists()
    assert store.cache_info() == (place, 3, 3 * size)
    forget(monkeypatch)
    library.functions([kernels[0], *kernels[2:]])
    assert counts() == (0, 3, 0)
    assert store.clear_cache() == 3 and files(place) == [foreign]


def test_the_directory_is_not_listed_for_each_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once by each process, and again where there may be too much."""
    listed = []
    entries = store._entries
    monkeypatch.setattr(store, "_bytes", {})
    monkeypatch.setattr(store, "_entries", lambda d: listed.append(d) or entries(d))
    library.functions([AddTo(float(i)) for i in range(6)])
    assert listed == [place] and len(files(place)) == 6
    limit = 16 * max(file.stat().st_size for file in files(place))
    monkeypatch.setattr(store, "LIMIT", limit)
    library.functions([AddTo(float(i)) for i in range(6, 26)])
    assert 2 <= len(listed) <= 10
    assert limit / 2 < sum(file.stat().st_size for file in files(place)) <= limit


def test_threads_compile_each_kernel_once() -> None:
    found: list[dict[Kernel, int]] = []
    kernels = [AddTo(float(i)) for i in range(8)]
    callers = [
        Thread(target=lambda: found.append(dict(library.functions(kernels)))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert counts() == (8, 0, 24) and found == [found[0]] * 4


SCRIPT = """
from library_case import AddTo, value, write
from tinygrad_tx.backends.cpu import library
library.render = write
for i in range(30):
    assert value(library.functions([AddTo(float(i))])[AddTo(float(i))]) == i
print(library.stats()["compiled"] + library.stats()["disk_hits"])
"""


def test_two_processes_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"}
    command = [sys.executable, "-c", SCRIPT]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [p.communicate(timeout=60)[0] for p in running] == ["30\n"] * 3
    assert len(files(place)) == 30
    assert library.functions([AddTo(7.0)]) and counts() == (0, 1, 0)


# The compiler itself -----------------------------------------------------------------------------


def test_targets() -> None:
    names = ("avx512", "avx2", "neon", "plain")
    avx512, avx2, neon, plain = (jit.named_target(name) for name in names)
    assert [t.name for t in (avx512, avx2, neon, plain)] == list(names)
    module = ir.Module()
    f = module.function("double", [("ptr", "x")])
    x = f.load("<16 x float>", f.params[0])
    f.store(f.fma(x, x, x), f.params[0])
    f.end()
    text = module.text()
    assert "zmm" in jit.assembly(text, avx512) and "vfmadd" in jit.assembly(text, avx512)
    assert "zmm" not in jit.assembly(text, avx2) and "ymm" in jit.assembly(text, avx2)
    assert "fmla" in jit.assembly(text, neon)
    assert "ymm" not in jit.assembly(text, plain)


def test_forced_target() -> None:
    script = "from tinygrad_tx.backends.cpu import jit; print(jit.host_target().name)"
    for name, code in (("plain", 0), ("sse9", 1)):
        environment = {**os.environ, "TX_TARGET": name}
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == code
        expected = "plain" if code == 0 else "TX_TARGET=sse9: this processor runs "
        assert expected in done.stdout + done.stderr


def test_functions_of_libm() -> None:
    """They are called where there is no instruction for them."""
    module = ir.Module()
    f = module.function("power", [("double", "x"), ("double", "y")], "double")
    f.end(f.call("pow", "double", *f.params))
    target = jit.host_target()
    loaded = jit.load_object(jit.compile_object(module.text(), target), target)
    power = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_double)
    assert power(loaded.address("power"))(3.0, 2.5) == 3.0**2.5


def test_mistakes() -> None:
    target = jit.host_target()
    with pytest.raises(RuntimeError, match="expected"):
        jit.compile_object("define nonsense", target)
    with pytest.raises(RuntimeError, match="object file"):
        jit.load_object(b"nonsense" * 100, target)
    module = ir.Module()
    f = module.function("known", [])
    f.call("no_such_function_anywhere", "void")
    f.end()
    loaded = jit.load_object(jit.compile_object(module.text(), target), target)
    for name in ("known", "unknown"):
        with pytest.raises(KeyError):
            loaded.address(name)
    with pytest.raises(TypeError, match="Opaque has no native form"):
        writers.render(Opaque("sort"), module, "f", target)


def test_without_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    engine.binding.cache_clear()
    with pytest.raises(jit.NativeUnavailable, match="pip install llvmlite"):
        jit.named_target("plain")
    monkeypatch.undo()
    engine.binding.cache_clear()


# What stays in the process, and what the code depends on ----------------------------------------


def test_code_that_nobody_uses_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """120 different constants: few modules stay, and what is still held keeps running."""
    import gc
    import weakref

    alive: weakref.WeakSet[jit.Loaded] = weakref.WeakSet()
    load = jit.load_object

    def counted(data: bytes, target: Processor) -> jit.Loaded:
        found = load(data, target)
        alive.add(found)
        return found

    monkeypatch.setattr(jit, "load_object", counted)
    monkeypatch.setattr(library, "KEPT", 20)
    held = library.functions([AddTo(0.5)])
    for i in range(120):
        kernel = AddTo(float(i))
        assert value(library.functions([kernel])[kernel]) == i
        if i % 50 == 0:  # used again: not the one that goes
            library.functions([AddTo(0.0)])
    gc.collect()
    assert len(library._loaded) == 20 and len(alive) <= 22
    assert value(held[AddTo(0.5)]) == 0.5
    before = counts()
    assert library.functions([AddTo(0.5)]) == held  # found again, not made a second time
    assert counts() == (before[0], before[1], before[2] + 1)


def test_plans_that_are_gone_free_their_code() -> None:
    """Of a compiled function that meets one constant after the other."""
    script = """
import gc, tinygrad_tx as tx
from tinygrad_tx.backends.cpu import jit, library
from tinygrad_tx.compiler import compiled
compiled.MAX_PLANS = 8
library.KEPT = 16
f = tx.compile(lambda x, c: (x * c).exp().sum())
x = tx.ones(4)
for i in range(60):
    f(x, i / 64 + 0.001)
gc.collect()
print(sum(isinstance(o, jit.Loaded) for o in gc.get_objects()))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(done.stdout) < 40


def test_freeing_while_others_run() -> None:
    """Threads make, run and drop code at the same time."""
    wrong: list[float] = []

    def work(start: int) -> None:
        for i in range(start, start + 40):
            kernel = AddTo(float(i))
            found = library.functions([kernel])
            if value(found[kernel]) != i:
                wrong.append(i)

    limit, library.KEPT = library.KEPT, 3
    try:
        threads = [Thread(target=work, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        library.KEPT = limit
    assert wrong == []


@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_the_key_covers_whatever_writes_code(machine: str) -> None:
    """From the files that write code on, every import of the package is part of the digest."""
    import ast

    package = ROOT / "tinygrad_tx"
    writers = [f for room in (machine, "llvm") for f in (package / "backends" / room).rglob("*.py")]
    covered = {Path(str(m.__file__)).resolve() for m in (*store.SOURCES, store)} | set(writers)
    asking = ("target.py", "memory.py", "cupy_device.py")  # for code, and writing none
    waiting = list(writers)
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in seen or file.name in asking:
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level:
                base = file.parents[node.level - 1]
            elif (node.module or "").startswith("tinygrad_tx"):
                base = ROOT
            else:
                continue
            base = base.joinpath(*(node.module or "").split(".")) if node.module else base
            for name in node.names:
                for place in (base / f"{name.name}.py", base.with_suffix(".py")):
                    if place.is_file():
                        waiting.append(place)
                        break
    assert seen - covered == set()
    assert package / "backends" / "arrays" / "special.py" in seen


def test_a_changed_coefficient_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad_tx.backends.arrays import special

    store.sources.cache_clear()
    before = library._digest("a kernel", jit.host_target())
    read = Path.read_bytes

    def changed(path: Path) -> bytes:
        data = read(path)
        return data.replace(b"7.85385e-05", b"7.85386e-05") if path.stem == "special" else data

    assert b"7.85385e-05" in read(Path(special.__file__))
    monkeypatch.setattr(Path, "read_bytes", changed)
    store.sources.cache_clear()
    assert library._digest("a kernel", jit.host_target()) != before
    store.sources.cache_clear()


def test_without_a_home(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As in a container with an unknown user: no HOME, no entry in passwd."""

    def unknown(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("TX_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", classmethod(unknown))
        store._homeless.cache_clear()
        for v in (1.0, 2.0):
            assert value(library.functions([AddTo(v)])[AddTo(v)]) == v
        assert store.cache_info() == (None, 0, 0) and store.clear_cache() == 0
    assert [r.message for r in caplog.records] == [
        "compiled kernels are not kept on disk: there is no home directory; "
        "set HOME or TX_CACHE_DIR"
    ]
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HOME", str(blocked))
    assert value(library.functions([AddTo(3.0)])[AddTo(3.0)]) == 3
    assert "Not a directory" in caplog.text or "File exists" in caplog.text
