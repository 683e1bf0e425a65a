"""training/examples.py, training/corpus.py and data/cache.py: what a run trains on, the same
whether it was made now or kept; what is done with damage, full disks and odd sets of pairs."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Watch, small

from tinygrad_tx.cli import main
from tinygrad_tx.data import Dataset, Tokenizer, cache
from tinygrad_tx.data.dataset import Column
from tinygrad_tx.data.files import digest
from tinygrad_tx.errors import UserError
from tinygrad_tx.training import Config, corpus, train
from tinygrad_tx.training.examples import Examples, load_examples

WORDS = [
    *["the", "old", "man", "reads", "a", "red", "book", "and", "sees"],
    *["young", "dog", "run", "home"],
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def pairs(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        "\t".join(" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for _ in range(2))
        for _ in range(n)
    ]


def files(tmp_path: Path, lines: list[str], *changes: str) -> Config:
    """A configuration of a TSV file of these lines."""
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return small("data.corpus=files", f"data.tsv={path}", *changes)


def load(config: Config, **more: Any) -> Examples:
    return load_examples(config, more.pop("tokenizer", None), lambda: more.get("then"))


def same(one: Examples, other: Examples) -> bool:
    return (
        one.tokenizer.dumps() == other.tokenizer.dumps()
        and one.data.summary() == other.data.summary()
        and one.data.fingerprint == other.data.fingerprint
        and (one.valid, one.held_out) == (other.valid, other.held_out)
        and all(
            np.array_equal(getattr(one.data, side).ids, getattr(other.data, side).ids)
            and np.array_equal(getattr(one.data, side).offsets, getattr(other.data, side).offsets)
            for side in ("source", "target")
        )
    )


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads or computes anew fails."""

    def failing(*args: object, **more: object) -> None:
        raise AssertionError("made anew")

    monkeypatch.setattr(corpus, "_survey", failing)
    monkeypatch.setattr(Tokenizer, "train", failing)
    monkeypatch.setattr(Dataset, "from_pairs", failing)


# Kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [False, True])
def test_a_second_start_takes_what_is_kept(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, validation: bool
) -> None:
    config = files(tmp_path, [*pairs(50), "\t", "x\t", *pairs(50, 1)], "data.max_len=8")
    if validation:
        valid = tmp_path / "valid.tsv"
        valid.write_text("the man\tthe dog\n\t\n")
        config = replace(config, data=replace(config.data, valid_tsv=str(valid)))
    first = load(config)
    assert (first.data.blank, first.data.too_long > 0) == (2, True)
    assert len(list(place.iterdir())) == 3
    assert isinstance(first.data.source.ids.base, np.memmap)
    assert first.data.source.ids.dtype == np.uint16
    with monkeypatch.context() as patch:
        forbid(patch)
        assert same(load(config), first)
        assert same(load(config, tokenizer=first.tokenizer), first)
    # As it was made before there was a cache.
    split = corpus.open_corpus(config.data, 0)
    plain = Dataset.from_pairs(split.train(), first.tokenizer, 8)
    assert plain.fingerprint == first.data.fingerprint and plain.source.ids.dtype == np.int32
    assert split.valid == first.valid


def test_what_it_depends_on(tmp_path: Path, place: Path) -> None:
    config = files(tmp_path, pairs(60))
    first = load(config)
    for change in ("train.seed=1", "data.valid_size=3", "tokenizer.vocab_size=280"):
        other = load(files(tmp_path, pairs(60), change))
        assert not same(other, first), change
    assert not same(load(files(tmp_path, pairs(60), "data.max_len=8")), first)
    # Another content of the same size, at the same time.
    path = Path(config.data.tsv or "")
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"dog", b"cat"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not same(load(config), first)


def test_damage_is_noticed(tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = files(tmp_path, pairs(60))
    first = load(config)
    for path in sorted(place.iterdir()):
        whole = path.read_bytes()
        for damaged in (
            *(b"", whole[:40], whole[:-1], whole + b"x", b"x" + whole[1:], bytes(len(whole))),
            *(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in (35, 70, -1)),
        ):
            path.unlink()  # for it is mapped: its bytes are those that `first` sees
            path.write_bytes(damaged)
            caplog.clear()
            assert same(load(config), first)
            assert "is damaged and made again" in caplog.text
            assert path.read_bytes() == whole


@pytest.mark.parametrize("reason", ["full", "read-only", "no home", "a file"])
def test_where_nothing_can_be_kept(
    tmp_path: Path,
    place: Path,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = files(tmp_path, pairs(60))
    first = load(config)
    cache.clear()
    if reason == "full":

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(cache, "_write", full)
    elif reason == "no home":
        monkeypatch.delenv("TX_CACHE_DIR")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    elif reason == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "file"))
    else:
        place.parent.rename(tmp_path / "elsewhere")
        monkeypatch.setattr(os, "access", lambda *args: False)
        cache._warn.cache_clear()
    assert same(load(config), first)
    assert not place.exists() or not list(place.iterdir())
    assert reason == "no home" or "not kept" in caplog.text
    cache._warn.cache_clear()


def test_ids_go_to_memory_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """Takes 1000 bytes."""

        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: bytes) -> int:
            if len(self.taken) == 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            part = bytes(data[: min(600, 1000 - len(self.taken))])
            self.taken += part
            return len(part)

        def seek(self, place: int) -> None:
            assert place == 0

        def read(self, size: int) -> bytes:
            return self.taken[:size]

    monkeypatch.setattr(cache, "scratch", Full)
    column = Column(np.uint16, on_disk=True)
    ids = np.arange(2000, dtype=np.int32)
    for part in np.split(ids, [10, 700, 700]):
        column.append(part, np.array([len(part)], dtype=np.int64))
    found = column.ragged()
    assert found.ids.tolist() == ids.tolist()
    assert found.offsets.tolist() == [0, 10, 700, 700, 2000]


def test_it_is_bounded(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for i in range(4):
        cache.save(cache.key(i), {"i": i}, {"x": np.arange(1000)})
        os.utime(place / f"{cache.key(i)}.tokens", (i, i))
        sizes.append(cache.info().bytes)
    assert cache.load(cache.key(0)) is not None  # used last
    monkeypatch.setattr(cache, "LIMIT", sizes[2])
    cache.trim()
    assert [cache.load(cache.key(i)) is not None for i in range(4)] == [True, False, True, True]
    foreign = place / "foreign"
    foreign.touch()
    monkeypatch.setattr(cache, "LIMIT", 10)
    data = Dataset.from_pairs([("a b", "c")], Tokenizer.train([], vocab_size=260), on_disk=True)
    data.keep(cache.key("large"))
    assert list(place.iterdir()) == [foreign], "what is larger than the limit is not kept"
    assert len(data.source[0]) == 4, "and can be used"


def test_entries() -> None:
    arrays = {"a": np.arange(5, dtype=np.int32), "b": np.empty(0), "c": np.arange(300_000)}
    cache.save(cache.key("x"), {"n": [1, "é"]}, arrays)
    entry = cache.load(cache.key("x"))
    assert entry is not None and entry.facts == {"n": [1, "é"]}
    assert all(np.array_equal(entry.arrays[n], a) for n, a in arrays.items())
    assert not entry.arrays["a"].flags.writeable
    assert cache.load(cache.key("y")) is None
    assert cache.key("a", "b") != cache.key("ab") != cache.key("a", "b", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_while_writing(place: Path) -> None:
    """What is left half written is removed by the next start; what is being written is not."""
    code = (
        "import os, signal, numpy as np\n"
        "from tinygrad_tx.data import cache\n"
        "def digest(file):\n"
        "    file.flush(); print('go', flush=True); signal.pause()\n"
        "cache._digest = digest\n"
        "cache.save(cache.key('x'), {}, {'x': np.arange(100_000)})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"go\n"
        cache.trim()
        assert len(list(place.iterdir())) == 1, "its writer lives"
        child.send_signal(signal.SIGKILL)
    assert len(list(place.iterdir())) == 1
    cache.trim()
    assert not list(place.iterdir())


def test_two_at_once(tmp_path: Path, place: Path) -> None:
    config = files(tmp_path, pairs(300))
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1] / 'helpers')!r})\n"
        "from training_runs import small\n"
        "from tinygrad_tx.training.examples import load_examples\n"
        f"config = small('data.corpus=files', 'data.tsv={config.data.tsv}')\n"
        "print(load_examples(config, None, lambda: None).data.fingerprint)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert {child.communicate()[0].strip() for child in both} == {
        str(load(config).data.fingerprint)
    }
    assert len(list(place.iterdir())) == 3


def test_doctor_shows_and_clears(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(files(tmp_path, pairs(60)))
    size = cache.info().bytes / 2**20
    assert main(["doctor"]) == 0
    line = f"token cache   3 files of tokenised text, {size:.1f} of 4096 MiB in {place}"
    assert line in capsys.readouterr().out
    assert main(["doctor", "--clear-cache"]) == 0
    out = capsys.readouterr().out
    assert f"cleared       3 files of tokenised text, {size:.1f} MiB" in out
    assert "token cache   0 files" in out
    assert not place.exists()


# Sets of pairs -----------------------------------------------------------------------------------


@pytest.mark.one_in(2)
@pytest.mark.parametrize("seed", range(6))
def test_blank_lines_between_sentences(tmp_path: Path, seed: int) -> None:
    lines = [text for line in pairs(9) for text in (line, "")]
    config = files(tmp_path, lines, f"train.seed={seed}")
    found = load(config)
    assert (len(found.data), found.data.blank, len(found.valid)) == (8, 9, 1)
    watch = Watch()
    train(config, tmp_path / "run", progress=watch)
    assert len(watch.losses) == 8


def test_held_out_pairs_are_those_of_before_where_no_side_is_blank(tmp_path: Path) -> None:
    config = files(tmp_path, pairs(57), "data.valid_size=5")
    expected = set(random.Random(3).sample(range(57), 5))
    split = corpus.open_corpus(config.data, 3)
    texts = [tuple(line.split("\t")) for line in pairs(57)]
    assert split.valid == [pair for i, pair in enumerate(texts) if i in expected]
    assert list(split.train()) == [pair for i, pair in enumerate(texts) if i not in expected]


def test_a_run_of_before_keeps_its_pairs(tmp_path: Path) -> None:
    """Blank pairs were drawn, too: the data that a checkpoint was made with tell."""
    lines = [text for line in pairs(40) for text in (line, "")]
    config = files(tmp_path, lines)
    texts = [tuple(line.split("\t")) if line else ("", "") for line in lines]
    chosen = set(random.Random(0).sample(range(80), 8))
    tokenizer = load(config).tokenizer
    kept = [p for i, p in enumerate(texts) if i not in chosen and p[0]]
    then = Dataset.from_pairs(kept, tokenizer, config.data.max_len).fingerprint  # type: ignore[arg-type]
    found = load(config, tokenizer=tokenizer, then=then)
    assert found.data.fingerprint == then
    assert found.valid == [p for i, p in enumerate(texts) if i in chosen and p[0]]
    assert load(config, tokenizer=tokenizer, then=then + 1).data.fingerprint != then


@pytest.mark.one_in(3)
@pytest.mark.parametrize("usable", [1, 2, 3])
@pytest.mark.parametrize("useless", ["", "\t", f"{'long ' * 90}\tx", f"x\t{'long ' * 900}"])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_usable_pairs(tmp_path: Path, usable: int, useless: str, seed: int) -> None:
    """Nine pairs of no use beside them take neither the place of a held-out pair nor of one to
    train on."""
    lines = [useless] * 9
    for i, line in enumerate(pairs(usable)):
        lines.insert(4 * i, line)
    config = files(
        tmp_path, lines, f"train.seed={seed}", "tokenizer.vocab_size=260", "train.max_steps=2"
    )
    if usable == 1:
        with pytest.raises(UserError, match=r"one sentence pair|no sentence pairs to learn from"):
            train(config, tmp_path / "run", progress=Watch())
        return
    watch = Watch()
    train(config, tmp_path / "run", progress=watch)
    assert len(watch.losses) == 2
    found = load(config)
    assert (len(found.data), len(found.held_out)) == (usable - 1, 1)


def test_a_long_pair_to_validate_with_beside_short_ones_to_train_on(tmp_path: Path) -> None:
    """Few short pairs make small batches, which a longer one must not need to fit into."""
    config = files(tmp_path, ["a\tb", "c\td"], "tokenizer.vocab_size=260", "train.max_steps=2")
    valid = tmp_path / "valid.tsv"
    valid.write_text("a longer one\tthan all the others\n")
    config = replace(config, data=replace(config.data, valid_tsv=str(valid)))
    watch = Watch()
    train(config, tmp_path / "run", progress=watch)
    assert len(watch.losses) == 2
    valid.write_text(f"{'word ' * 1000}\tx\n")
    with pytest.raises(UserError, match="none of the 1 sentence pairs to validate with fits"):
        train(config, tmp_path / "other", progress=Watch())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_held_out_pairs_have_positions(tmp_path: Path) -> None:
    """Where they are learned there is an end to them, for targets as for sources."""
    held_out = [" ".join(WORDS[:n]) for n in (3, 5, 9)]
    valid = tmp_path / "valid.tsv"
    valid.write_text("".join(f"{x}\t{y}\n" for x in held_out for y in held_out))
    settings = ["tokenizer.kind=word", f"data.valid_tsv={valid}", "data.max_len=8"]
    learned = ["model.positions=learned", "model.max_len=9"]
    config = files(tmp_path, pairs(20), *settings, *learned)
    assert len(load(config).held_out) == 4
    assert len(load(files(tmp_path, pairs(20), *settings)).held_out) == 9


@pytest.mark.slow
def test_training_on_pipes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = pairs(40)
    sides = [tmp_path / "src", tmp_path / "tgt"]
    for i, path in enumerate(sides):
        path.write_text("".join(line.split("\t")[i] + "\n" for line in lines))
    flags = " ".join(["--set", *(f"'{o}'" for o in _overrides())])
    command = (
        f"{sys.executable} -m tinygrad_tx train --src <(cat {sides[0]}) --tgt <(cat {sides[1]}) "
        f"--out {tmp_path / 'run'} {flags}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "36 pairs" in done.stderr


def _overrides() -> list[str]:
    from training_runs import SMALL

    return [*SMALL, "train.max_steps=1"]


# Memory ------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from tinygrad_tx import cli
import numpy, tokenizers
import tinygrad_tx.training.trainer, tinygrad_tx.decoding
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (600 << 20),) * 2)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux only")
@pytest.mark.parametrize(
    "flags", ["--src {1} --tgt {0}", pytest.param("--tsv {0}", marks=pytest.mark.slow)]
)
def test_a_line_of_a_gigabyte_is_refused_in_one_line(tmp_path: Path, flags: str) -> None:
    path, good = tmp_path / "huge", tmp_path / "good"
    good.write_text("a\tb\n" * 5)
    with path.open("wb") as file:
        file.write(b"a\tb\n" * 3 + b"x")
        file.truncate(1 << 30)  # a sparse file, of NUL characters
    given = flags.format(path, good).split()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "train", *given, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tinygrad-tx: {path}, line 4: more than ")
    assert not (tmp_path / "run").exists()


def test_a_cache_that_may_not_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    cache.trim()
    assert cache.info().files == cache.clear().files == 0


def test_files_are_compared_no_longer_than_they_must(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"x" * (1 << 20))
    asked: list[int] = []
    digest(path, lambda: bool(asked.append(1)) or len(asked) > 1)
    assert len(asked) == 2
