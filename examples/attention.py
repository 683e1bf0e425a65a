"""Pictures of attention, of positions and of what outputs depend on.

    python examples/attention.py --out docs/pictures

trains the preset `tiny` for some minutes, unless --model says which run to look at, and draws the
pictures of docs/attention.md: what the heads look at while a sentence is translated, positions of
three kinds of model, and the dependencies of a Transformer, with and without its causal mask. The
picture of the page in a browser is made where chromium is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import tinygrad_tx as tx
from tinygrad_tx import models, nn
from tinygrad_tx.cli import main as command

SMALL = bool(os.environ.get("TX_SMALL"))
SENTENCE = "The old doctor sees the red house."


def translator(root: Path) -> Path:
    """The run, trained where it is not there."""
    if not (root / "model.safetensors").exists():
        steps = ["train.max_steps=600", "train.valid_every=300"]
        if SMALL:
            steps = ["train.max_steps=2", "train.valid_every=2", "data.corpus_size=200"]
            steps += ["data.valid_size=4", "tokenizer.vocab_size=300"]
        if command(["train", "--preset", "tiny", "--out", str(root), "--set", *steps]):
            raise SystemExit("the translator was not trained")
    return root


def heads(run: Path, out: Path) -> None:
    model, tokenizer = models.load(run)
    whole = tx.viz.attention(model, SENTENCE, tokenizer=tokenizer)
    for name, chosen in (
        ("maps", whole.choose(layer="decoder.layers.1")),
        ("arcs", whole.choose(layer="decoder.layers.1.cross_attn", arcs=True)),
        ("rollout", whole.choose(rollout=True)),
    ):
        chosen.save(out / f"attention-{name}.svg")
    screenshot(whole.choose(layer="cross_attn").save(out / "attention.html").absolute())


def screenshot(page: Path) -> None:
    """The page as a browser shows it, in the place of the page."""
    picture, browser = page.with_name("attention-page.png"), shutil.which("chromium")
    if browser is not None and not SMALL:
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,760")
        shot = [browser, *flags, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(shot, check=True, capture_output=True)
    page.unlink()


def positions(out: Path) -> None:
    tx.manual_seed(1)
    layers = {"vocab_size": 32, "n_heads": 4, "d_ff": 8}
    config = models.TransformerConfig(**layers, d_model=128, n_encoder_layers=1, n_decoder_layers=1)
    llama = models.LlamaConfig(**layers, d_model=128, n_layers=1)
    t5 = models.T5Config(**layers, d_model=64, n_layers=1)
    for name, model in (
        ("sinusoids", models.Transformer(config)),
        ("rotary", models.Llama(llama)),
        ("distances", models.T5(t5)),
    ):
        tx.viz.positions(model).save(out / f"positions-{name}.svg")


class Unmasked(nn.MultiHeadAttention):
    """An attention whose causal mask was forgotten."""

    def forward(  # type: ignore[override]
        self,
        q: tx.Tensor,
        k: tx.Tensor,
        v: tx.Tensor,
        mask: tx.Tensor | None = None,
        is_causal: bool = False,
    ) -> tx.Tensor:
        return super().forward(q, k, v, mask)


def dependencies(out: Path) -> None:
    model = models.Transformer(
        models.TransformerConfig(
            vocab_size=32, d_model=16, n_heads=2, d_ff=16, n_encoder_layers=2, n_decoder_layers=2
        )
    )
    tx.viz.dependencies(model).save(out / "dependencies.svg")
    model.decoder.layers[1].self_attn = Unmasked(16, 2)
    found = tx.viz.dependencies(model)
    print(found)
    found.save(out / "dependencies-leak.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="default: pictures")
    parser.add_argument("--model", type=Path, default=Path("runs/attention"), help="a run")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    heads(translator(args.model), args.out)
    positions(args.out)
    dependencies(args.out)
    print(f"pictures: {args.out}")


if __name__ == "__main__":
    main()
