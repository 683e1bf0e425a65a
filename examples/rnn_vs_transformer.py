"""The road to the Transformer as a race: RNN, LSTM and GRU encoder-decoders without attention, GRU
with Bahdanau's and with Luong's, convolutions with attention, and the Transformer. All have as many
parameters, the same corpus, tokenizer, batches, optimizer and time.

    python examples/rnn_vs_transformer.py --minutes 5
    python examples/rnn_vs_transformer.py --minutes 20 --data multi30k \\
        --src train.de --tgt train.en --valid-src val.de --valid-tgt val.en \\
        --test-src test.de --test-tgt test.en

Without files the corpus is the built-in one. Each contender is a run in a directory below --out,
which `tinygrad-tx info`, `translate` and `attention` know. After Ctrl-C the same command goes on; a
contender that is done is not trained again, unless more --minutes are asked for. --out also gets
results.json, results.md (the tables) and pictures: of the losses, of BLEU by the length of the
source, and of what those with attention look at.

`--report` makes tables and pictures anew: of the results.json files that it is given, or of those
in benchmarks/results, and then also what docs/ shows of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import training
from tinygrad_tx.backends.cpu import host
from tinygrad_tx.models import registry
from tinygrad_tx.training import log, metrics

ROOT = Path(__file__).parents[1]
NAME = Path(__file__).stem
SMALL = bool(os.environ.get("TX_SMALL"))  # how the tests run it: tiny models, two steps

Record = dict[str, Any]
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Contender:
    """title: for tables. model: its [model] section, without the width, which is chosen for the
    number of parameters. lr: at the end of the warmup."""

    title: str
    model: Mapping[str, object]
    lr: float


def recurrent(title: str, cell: str, attention: str, lr: float) -> Contender:
    """One layer on either side; the encoder reads in both directions."""
    return Contender(title, {"kind": "seq2seq", "cell": cell, "attention": attention}, lr)


# One optimizer and one schedule (Adam, inverse square root) for all, but a rate for each: what
# suits one starves or wrecks another, and at a single rate the race would be one of rates. Trials
# on Multi30k chose them. The Transformer's validation loss after 2.2 minutes is 3.76 with 4e-3 and
# 4.15 with 2e-3; the paper's post-norm has 4.60 with 1.4e-3, and with a short warmup to 4e-3 learns
# nothing (9.06, a blind guess), so it is the pre-norm. Of the others after 240 steps of 1,024
# tokens, Luong's has 4.10 with 4e-3 and 4.71 with 1e-3, ConvS2S 3.66 and 4.65, the vanilla RNN 4.16
# and 4.57. The last gets less all the same, for its gradient passes one matrix as often as there
# are words, and may explode in any of thousands of steps.
CONTENDERS = {
    "rnn": recurrent("vanilla RNN", "rnn", "none", 2e-3),
    "lstm": recurrent("LSTM", "lstm", "none", 3e-3),
    "gru": recurrent("GRU", "gru", "none", 3e-3),
    "gru-bahdanau": recurrent("GRU, Bahdanau's attention", "gru", "bahdanau", 3e-3),
    "gru-luong": recurrent("GRU, Luong's attention", "gru", "luong", 3e-3),
    "convs2s": Contender("ConvS2S", {"kind": "convs2s", "n_layers": 4}, 3e-3),
    "transformer": Contender("Transformer", {}, 4e-3),  # sizes are the preset's
}
NEAR = 0.05  # how far a number of parameters may be from the Transformer's, as a part of it
QUICK = ["gru-luong", "convs2s", "transformer"]  # those of the tests
STEP = 1 if SMALL else 4  # widths are multiples of this: less than 3% of the parameters

# What a comparison changes of the preset, `tiny` or `multi30k`, for everybody.
SHARED = [
    "schedule.name=inverse_sqrt",
    "schedule.warmup_steps=400",  # a seventh of the slowest's in 20 minutes
    "train.max_steps=none",
    "train.valid_bleu=false",  # the clock runs during validation: the loss alone is soon measured
    "train.valid_every=200",
    "train.log_every=10",
    "train.checkpoint_every=100",
    "train.keep_last=5",
    "train.average_last=5",
    "train.patience=0",
    "decode.beam_size=4",
    "decode.length_penalty=0.6",
]
FOR_FILES = ["data.max_tokens=2048"]  # half the preset's: twice the steps in the same time
FOR_TESTS = [
    *("data.corpus_size=200", "data.valid_size=3", "data.max_tokens=100", "data.max_len=20"),
    *("tokenizer.kind=word", "schedule.warmup_steps=2", "train.max_steps=2"),
    *("train.valid_every=2", "train.log_every=1", "train.valid_sentences=1"),
    *("decode.max_extra_tokens=1", "decode.beam_size=2", "train.compile=false"),
]
FILES = ("src", "tgt", "valid_src", "valid_tgt")
PAGES = ("results.md", "from-rnn-to-transformer.md")
EDGES = (6, 8, 10, 12, 15, 19)  # words of a source, of the longest in each group but the last


# What is run ------------------------------------------------------------------------------------


def base(args: argparse.Namespace) -> training.Config:
    """The run that all have in common, with the Transformer as its model. All of its matrices are
    its own, as the others' are: shared ones would leave it more parameters for its layers."""
    rate = f"optim.lr={CONTENDERS['transformer'].lr}"
    changes = [*SHARED, rate, f"train.max_minutes={args.minutes}"]
    if args.src:
        files = [f"data.{name}={getattr(args, name).resolve()}" for name in FILES]
        changes += ["data.corpus=files", *files, *FOR_FILES]
    changes += ["model.tie_embeddings=false", "model.norm=pre"]
    if SMALL:
        changes += ["model.d_model=32", "model.n_heads=2", "model.d_ff=64", *FOR_TESTS]
    preset = training.preset("multi30k" if args.src else "tiny")
    return training.apply_overrides(preset, changes)


def vocabulary(config: training.Config) -> registry.Tokens:
    """One as large as that which the runs will learn."""
    data, c = config.data, config.tokenizer
    if data.src and data.tgt:
        pairs = tx.data.read_pairs(data.src, data.tgt)
    else:
        pairs = iter(tx.data.grammar.pairs("train", data.corpus_size))
    texts = (text for pair in pairs for text in pair)
    found = tx.data.Tokenizer.train(texts, c.kind, c.vocab_size, c.lowercase, c.min_frequency)
    return registry.Tokens(found.vocab_size)


def n_parameters(config: training.Config, tokens: registry.Vocabulary) -> int:
    return sum(p.numel() for p in registry.build(asdict(config.model), tokens).parameters())


def fitted(
    contender: Contender, config: training.Config, tokens: registry.Vocabulary, seed: int
) -> training.Config:
    """The contender's configuration, as wide as gives it about as many parameters as `config`."""
    goal = n_parameters(config, tokens)
    own = [f"model.{key}={value}" for key, value in contender.model.items()]
    if own:
        own.append(f"model.dropout={asdict(config.model)['dropout']}")
    own += [f"optim.lr={contender.lr}", f"train.seed={seed}"]

    def at(width: int) -> training.Config:
        return training.apply_overrides(config, [*own, f"model.d_model={width}"])

    def size(width: int) -> int:
        return n_parameters(at(width), tokens)

    if not contender.model:
        return at(config.model.d_model)
    widths = range(STEP, 65 if SMALL else 513, STEP)
    above = bisect_left(widths, goal, key=size)
    nearest = min(widths[above - 1 : above + 1], key=lambda width: abs(size(width) - goal))
    if abs(size(nearest) / goal - 1) > NEAR:
        raise SystemExit(f"{contender.title}: no width gives about {goal:,} parameters")
    return at(nearest)


# Measuring --------------------------------------------------------------------------------------


def finished(config: training.Config, out: Path) -> Record | None:
    """What a finished run with this configuration has come to; None if there is none."""
    kept = out / "result.json"
    if not kept.exists():
        return None
    found: Record = json.loads(kept.read_text(encoding="utf-8"))
    return found["result"] if found["config"] == asdict(config) else None


def compete(name: str, config: training.Config, out: Path, test: Pairs) -> Record:
    """Trains a contender, or goes on with its run, and measures it."""
    training.train(config, out, resume=(out / "config.toml").exists())
    model, tokenizer = tx.models.load(out)
    result = {
        "name": name,
        "title": CONTENDERS[name].title,
        "seed": config.train.seed,
        "model": model.config.describe(),
        "lr": config.optim.lr,
        "parameters": sum(p.numel() for p in model.parameters()),
        "step_mib": round(step_bytes(config, model) / 2**20, 1),
        **course(log.read(out / "metrics.jsonl")),
        **scores(model, tokenizer, config.decode, test),
        "attention": alignment(model, tokenizer, test),
    }
    kept = {"config": asdict(config), "result": result}
    (out / "result.json").write_text(json.dumps(kept), encoding="utf-8")
    return result


def course(rows: Sequence[log.Row]) -> Record:
    """Times and losses of training. A step's time is that of the median among the means of
    train.log_every steps each."""
    trained = [row for row in rows if "loss" in row]
    valid = [row for row in rows if "valid_loss" in row]
    ms = [
        1e3 * (b["tokens"] - a["tokens"]) / b["tokens_per_s"] / (b["step"] - a["step"])
        for a, b in pairwise([{"step": 0, "tokens": 0}, *trained])
    ]
    return {
        "steps": trained[-1]["step"],
        "minutes": round(trained[-1]["seconds"] / 60, 2),
        "step_ms": round(median(ms), 1),
        "tokens_per_s": round(median(row["tokens_per_s"] for row in trained)),
        "valid_loss": round(min(row["valid_loss"] for row in valid), 4),
        "curve": [
            [round(row["seconds"] / 60, 3), round(row["valid_loss"], 4)]
            for row in valid
            if "of" not in row  # that of averaged weights
        ],
    }


def step_bytes(config: training.Config, model: Any) -> int:
    """The most bytes of a compiled training step beside weights and optimizer, on a full batch of
    sentences of 16 tokens."""
    optimizer = tx.optim.Adam(model.parameters(), lr=1e-9)

    @tx.compile
    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model.loss(src, tgt_in, tgt_out, config.train.label_smoothing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    length, mode = 16, model.training
    ids = tx.full((config.data.max_tokens // length, length), 5, dtype=tx.int64)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    step(ids, ids, ids)
    model.train(mode).load_state_dict(state)
    peak: int = step.stats()["peak_bytes"]
    return peak


def scores(model: Any, tokenizer: tx.data.Tokenizer, decode: Any, test: Pairs) -> Record:
    """BLEU and chrF on test pairs, by beam and greedily, and BLEU by the length of the source, of
    the beam's."""
    sources, references = (list(side) for side in zip(*test, strict=True))

    def translated(beam: int, penalty: float) -> list[str]:
        return tx.decoding.translate(
            model,
            tokenizer,
            sources,
            beam_size=beam,
            length_penalty=penalty,
            max_extra_tokens=decode.max_extra_tokens,
        )

    found: Record = {}
    by_beam = translated(decode.beam_size, decode.length_penalty)
    for kind, outputs in ("beam", by_beam), ("greedy", translated(1, 0.0)):
        score = metrics.score(outputs, references, lowercase=True)
        found[kind] = {"bleu": round(score.bleu, 2), "chrf": round(score.chrf, 2)}
    found["signature"] = score.bleu_signature
    found["by_length"] = groups = []
    for first, last in zip((1, *(edge + 1 for edge in EDGES)), (*EDGES, None), strict=True):
        longest = last or sys.maxsize
        chosen = [i for i, line in enumerate(sources) if first <= len(line.split()) <= longest]
        if chosen:
            score = metrics.score(
                [by_beam[i] for i in chosen], [references[i] for i in chosen], lowercase=True
            )
            bleu = round(score.bleu, 2)
            words = f"{first}-{last}" if last else f"{first}+"
            groups.append({"words": words, "sentences": len(chosen), "bleu": bleu})
    return found


def alignment(model: Any, tokenizer: tx.data.Tokenizer, test: Pairs) -> Record | None:
    """What the decoder's last layer looks at in the source while one test sentence is translated;
    None for a model without attention."""
    line = min((source for source, _ in test), key=lambda line: abs(len(line.split()) - 10))
    source = [*tokenizer.encode(line), tokenizer.eos_id]
    [[best]] = tx.decoding.generate(model, [source], max_new_tokens=len(source) + 10)
    target = [tokenizer.bos_id, *best.tokens]
    try:
        maps = tx.viz.attention_maps(model, source, target)
    except tx.errors.UserError:
        return None
    name = [n for n in maps if n.startswith("decoder") and n.endswith(("attention", "cross_attn"))]
    return {
        "source": tokenizer.tokens(source),
        "target": tokenizer.tokens(target),
        "name": name[-1],
        # A text for each row, which JSON does not stretch over many lines.
        "weights": [[" ".join(f"{w:.2f}" for w in row) for row in head] for head in maps[name[-1]]],
    }


# The report -------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Callable[[Sequence[Record]], str]] = {
    "": lambda runs: runs[0]["title"],
    "parameters": lambda runs: f"{runs[0]['parameters']:,}",
    "rate": lambda runs: f"{runs[0]['lr']:g}",
    "steps": lambda runs: f"{mean(run['steps'] for run in runs):,.0f}",
    "ms a step": lambda runs: f"{mean(run['step_ms'] for run in runs):,.0f}",
    "tokens/s": lambda runs: f"{mean(run['tokens_per_s'] for run in runs):,.0f}",
    "MiB a step": lambda runs: f"{mean(run['step_mib'] for run in runs):,.0f}",
    "valid loss": lambda runs: shown([run["valid_loss"] for run in runs], 3),
    "BLEU": lambda runs: shown([run["beam"]["bleu"] for run in runs], 2),
    "chrF": lambda runs: shown([run["beam"]["chrf"] for run in runs], 2),
    "BLEU, greedy": lambda runs: shown([run["greedy"]["bleu"] for run in runs], 2),
}


def shown(values: Sequence[float], digits: int) -> str:
    """A mean; of several values with the least and the greatest."""
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text


def by_contender(record: Record) -> Iterator[list[Record]]:
    """The runs of each contender, one for each seed."""
    for name in CONTENDERS:
        if runs := [run for run in record["runs"] if run["name"] == name]:
            yield runs


def bleu_by_length(runs: Sequence[Record]) -> list[float]:
    groups = zip(*(run["by_length"] for run in runs), strict=True)
    return [mean(group["bleu"] for group in of_seeds) for of_seeds in groups]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, line, *rows))


def tables(record: Record) -> str:
    """A result in words and Markdown tables."""
    found = list(by_contender(record))
    seeds = sorted({run["seed"] for run in record["runs"]})
    of = f", means of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    lengths = found[0][0]["by_length"]
    head = ["BLEU by source words", *(f"{x['words']} ({x['sentences']})" for x in lengths)]
    rows = [[r[0]["title"], *(f"{bleu:.1f}" for bleu in bleu_by_length(r))] for r in found]
    said = (
        f"{record['what']}, {record['minutes']:g} minutes on {record['threads']} threads for each "
        f"contender ({record['machine']['cpu']}, {record['date']}){of}. BLEU and chrF of "
        f"{record['sentences']:,} test sentences, lower-cased, by beam {record['beam']} unless "
        "said otherwise; `MiB a step` is what a training step takes beside weights and optimizer; "
        "below, in brackets, the number of sentences."
    )
    table = markdown([*COLUMNS], [[column(runs) for column in COLUMNS.values()] for runs in found])
    return "\n\n".join((said, table, markdown(head, rows), f"`{record['command']}`"))


# Okabe and Ito's colours, which all kinds of eyes tell apart; markers and dashes say the same.
STYLES: Mapping[str, Mapping[str, Any]] = {
    "rnn": {"color": "#999999", "marker": "x", "linestyle": ":"},
    "lstm": {"color": "#56B4E9", "marker": "v", "linestyle": ":"},
    "gru": {"color": "#0072B2", "marker": "^", "linestyle": ":"},
    "gru-bahdanau": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "gru-luong": {"color": "#E69F00", "marker": "D", "linestyle": "--"},
    "convs2s": {"color": "#009E73", "marker": "P", "linestyle": "-."},
    "transformer": {"color": "#000000", "marker": "o", "linestyle": "-"},
}


def draw(record: Record, path: Path) -> None:
    """BLEU by the length of the source, and validation loss over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for runs in by_contender(record):
        style = dict(STYLES[runs[0]["name"]]) | {"markersize": 5, "linewidth": 1.6}
        bleu = bleu_by_length(runs)
        left.plot(range(len(bleu)), bleu, label=runs[0]["title"], **style)
        for run in runs:
            minutes, losses = zip(*run["curve"], strict=True)
            every = max(1, len(minutes) // 8)
            right.plot(minutes, losses, **style, markevery=every)
    groups = record["runs"][0]["by_length"]
    labels = [f"{group['words']}\n{group['sentences']}" for group in groups]
    left.set_xticks(range(len(groups)), labels)
    left.set(xlabel="words of the source; sentences below", ylabel="BLEU", ylim=(0, None))
    left.set_title("BLEU by length")
    end = max(minutes for run in record["runs"] for minutes, _ in run["curve"])
    late = [loss for run in record["runs"] for at, loss in run["curve"] if at >= end / 10]
    right.set(xlabel="minutes of training", ylabel="nats a token", ylim=(None, max(late)))
    right.set_title("validation loss")
    for axis in left, right:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=100)


def with_attention(record: Record) -> list[Record]:
    """A run of each contender that has an attention to look at."""
    return [runs[0] for runs in by_contender(record) if runs[0]["attention"]]


def picture(record: Record, run: Record | None = None) -> str:
    """The file of a result's picture, or of that of a run's attention."""
    parts = [NAME, record["what"]] + ([run["name"]] if run else [])
    return f"{'-'.join(parts)}.png"


def draw_all(record: Record, directory: Path) -> None:
    """All pictures of a result."""
    if find_spec("matplotlib") is None:
        print("pictures need matplotlib: pip install matplotlib")
        return
    directory.mkdir(parents=True, exist_ok=True)
    draw(record, directory / picture(record))
    for run in with_attention(record):
        found = run["attention"]
        heads = [[row.split() for row in head] for head in found["weights"]]
        weights = np.array(heads, np.float32)
        path = directory / picture(record, run)
        tx.viz.draw_attention({found["name"]: weights}, found["source"], found["target"], path)
    print(f"pictures: {directory}/{NAME}-*.png")


def report(records: Sequence[Record], out: Path) -> None:
    """Tables and pictures of results in a directory; the tables are printed, too."""
    out.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(map(tables, records))
    (out / "results.md").write_text(f"{text}\n", encoding="utf-8")
    print(f"\n{text}\n")
    for record in records:
        draw_all(record, out)


# What docs/ shows -------------------------------------------------------------------------------

NOTHING = (
    "**Not measured yet**: the runs have not been made, so no figure stands here.\n"
    f"`python examples/{NAME}.py --report` fills this place from `benchmarks/results/`."
)


def results() -> list[Record]:
    """Those in benchmarks/results."""
    files = sorted((ROOT / "benchmarks" / "results").glob(f"{NAME}-*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def write_docs(records: Sequence[Record]) -> None:
    """The marked places in docs/ made anew, and the pictures there."""
    for record in records:
        draw_all(record, ROOT / "docs" / "pictures")
    for name in PAGES:
        page = ROOT / "docs" / name
        page.write_text(filled(page.read_text(encoding="utf-8"), records), encoding="utf-8")


def filled(page: str, records: Sequence[Record]) -> str:
    """A page of docs/ with what stands in its marked places made anew."""
    figures, attention = [], []
    for record in records:
        link = f"![BLEU by length, and validation loss](pictures/{picture(record)})"
        figures += [tables(record), link]
        for run in with_attention(record):
            attention.append(f"![{run['title']}](pictures/{picture(record, run)})")
    for place, parts in ("figures", figures), ("attention", attention):
        begin, end = (f"<!-- {NAME}, {place}: {word} -->" for word in ("begin", "end"))
        before, marked, rest = page.partition(begin)
        if marked:
            content = "\n\n".join(parts) or NOTHING
            page = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return page


# The program ------------------------------------------------------------------------------------


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20, metavar="M",
                        help="of training for each contender (default: 20)")  # fmt: skip
    every = QUICK if SMALL else list(CONTENDERS)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=every, metavar="NAME",
                        help=f"some of {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N",
                        help="a run for each of them (default: 0)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs") / NAME, metavar="DIR",
                        help=f"(default: runs/{NAME})")  # fmt: skip
    parser.add_argument("--data", default="builtin", metavar="NAME", help="builtin (the default), "
                        "or what to call the corpus in these files:")  # fmt: skip
    for side in ("src", "tgt", "valid-src", "valid-tgt", "test-src", "test-tgt"):
        parser.add_argument(f"--{side}", type=Path, metavar="FILE")
    parser.add_argument("--report", nargs="*", type=Path, metavar="FILE",
                        help="make tables and pictures of results; train nothing")  # fmt: skip
    args = parser.parse_args(argv)
    files = [getattr(args, name) for name in (*FILES, "test_src", "test_tgt")]
    if any(files) != all(files) or any(files) == (args.data == "builtin"):
        parser.error("a corpus of files needs --data NAME and all six of them")
    if missing := [file for file in (*files, *(args.report or [])) if file and not file.is_file()]:
        parser.error(f"there is no file {missing[0]}")
    if not args.minutes > 0:
        parser.error("--minutes must be above 0")
    return args


def race(args: argparse.Namespace) -> Record:
    """The runs that are asked for, one after another, and those that were made before; what came
    out is kept after each."""
    config = base(args)
    tokens = vocabulary(config)
    if args.src:
        test = list(tx.data.read_pairs(args.test_src, args.test_tgt))
    else:
        test = list(tx.data.grammar.pairs("test", config.data.valid_size))
    # As another machine may have it.
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    record: Record = {
        "benchmark": NAME,
        "what": args.data,
        "date": date.today().isoformat(),
        "machine": {
            "cpu": host.cpuinfo()["model name"],
            "cores": host.cores(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "tinygrad_tx": tx.__version__,
            **{name: version(name) for name in ("numpy", "llvmlite", "sacrebleu")},
        },
        "command": shlex.join(["python", f"examples/{NAME}.py", *words]),
        "minutes": args.minutes,
        "threads": tx.get_num_threads(),
        "beam": config.decode.beam_size,
        "sentences": len(test),
        "runs": [],
    }
    for name, contender in CONTENDERS.items():
        for seed in args.seeds:
            out = args.out / f"{name}-{seed}"
            if name not in args.only and not (out / "result.json").exists():
                continue
            own = fitted(contender, config, tokens, seed)
            result = finished(own, out)
            if result is None and name in args.only:
                size = n_parameters(own, tokens)
                print(f"\n{contender.title}, seed {seed}: d_model {own.model.d_model}, "
                      f"{size:,} parameters", flush=True)  # fmt: skip
                result = compete(name, own, out, test)
                assert result["parameters"] == size, "another vocabulary than was reckoned with"
            if result is not None:
                record["runs"].append(result)
                text = json.dumps(record, indent=1)
                (args.out / "results.json").write_text(text, encoding="utf-8")
    return record


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.report is None:
        try:
            report([race(args)], args.out)
        except KeyboardInterrupt:
            sys.exit(f"what was done is in {args.out}; the same command goes on")
        except tx.errors.UserError as error:
            sys.exit(f"{NAME}: {error}")
        return
    given = [json.loads(file.read_text(encoding="utf-8")) for file in args.report]
    records = given or results()
    report(records, args.out)
    if not given:
        write_docs(records)


if __name__ == "__main__":
    main()
