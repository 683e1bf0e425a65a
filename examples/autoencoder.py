"""Three autoencoders learn the handwritten digits of scikit-learn (1797 images of 8 x 8): a dense,
a convolutional and a variational one. A code is two numbers, unless told otherwise.

    python examples/autoencoder.py
    python examples/autoencoder.py --latent 8 --out digits-8.png
    python examples/autoencoder.py --epochs 300 --beta 2

A fifth of the images is kept apart. Printed is how well each model gives them back, beside what the
mean image would do; drawn are such reconstructions, digits that the variational one makes up, and
where in the plane of its codes it puts images that it never saw. Half a minute on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import models
from tinygrad_tx.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

SMALL = "TX_SMALL" in os.environ  # the tests' wish to be quick
EPOCHS = 2 if SMALL else 150
BATCH = 64
LR = 2e-3
GRID = 8  # so many rows and columns of samples

Array = np.ndarray[Any, Any]
Model = models.Autoencoder | models.ConvAutoencoder | models.VariationalAutoencoder


def digits() -> tuple[Array, Array, Array]:
    """Images to learn from, images to test with, (N, 1, 8, 8) from 0 to 1, and the digits that the
    latter show."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit('the digits need scikit-learn: pip install "tinygrad_tx[digits]"')
    data = load_digits()
    images = (data.images[:, None] / data.images.max()).astype(np.float32)
    images = images[:: 8 if SMALL else 1]
    order = np.random.default_rng(0).permutation(len(images))
    test, train = np.split(order, [len(images) // 5])
    return images[train], images[test], data.target[test]


def build(latent: int, beta: float) -> dict[str, Model]:
    shape = (1, 8, 8)
    return {
        "dense": models.Autoencoder(models.AutoencoderConfig(shape, latent)),
        "convolutional": models.ConvAutoencoder(models.ConvAutoencoderConfig(shape, latent)),
        "variational": models.VariationalAutoencoder(
            models.VariationalAutoencoderConfig(shape, latent, beta=beta)
        ),
    }


def train(name: str, model: Model, images: Array, epochs: int) -> None:
    """Prints the mean loss of an epoch now and then."""
    steps = epochs * (len(images) // BATCH)
    optimizer = tx.optim.AdamW(model.parameters(), lr=LR)
    schedule = tx.optim.lr_scheduler.Cosine(optimizer, steps, warmup=steps // 20)

    @tx.compile
    def train_step(x: tx.Tensor) -> tx.Tensor:
        loss = model.loss(x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        return loss

    batches = DataLoader(TensorDataset(tx.tensor(images)), BATCH, shuffle=True, drop_last=True)
    begun = time.perf_counter()
    for epoch in range(1, epochs + 1):
        losses = [train_step(x).item() for (x,) in batches]
        if epoch == 1 or epoch == epochs or epoch % 50 == 0:
            seconds = time.perf_counter() - begun
            loss = f"loss {np.mean(losses):8.4f}"
            print(f"{name:14} epoch {epoch:4} of {epochs}  {loss}  {seconds:5.1f} s", flush=True)


@tx.no_grad()
def reconstruct(model: Model, images: Array) -> Array:
    found: tx.Tensor = model.eval()(tx.tensor(images))
    return found.numpy()


@tx.no_grad()
def plane(model: models.VariationalAutoencoder, images: Array) -> Array:
    """The mean codes of images, (N, 2): of longer ones the two principal components."""
    codes = model.encode(tx.tensor(images))[0].numpy()
    if codes.shape[1] <= 2:
        return np.pad(codes, [(0, 0), (0, 2 - codes.shape[1])])
    codes = codes - codes.mean(0)
    axes = np.linalg.svd(codes, full_matrices=False)[2][:2]
    return codes @ axes.T


# The picture -----------------------------------------------------------------------------------


def tiled(images: Array, columns: int) -> Array:
    """Images (N, 1, 8, 8) as one, with gaps between: NaN, which is drawn as nothing."""
    padded = np.pad(images[:, 0], [(0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    rows = padded.reshape(-1, columns, *padded.shape[1:]).swapaxes(1, 2)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1)[:-1, :-1]


def draw(
    original: Array, found: dict[str, Array], samples: Array, codes: Array, classes: Array
) -> Figure:
    """All there is to see. found: what each model makes of the original images. codes (N, 2), and
    classes, what the images show."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 11), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[5, 6])
    draw_reconstructions(top, original, found, np.unique(classes, return_index=True)[1])
    left, right = bottom.subplots(1, 2)
    left.imshow(tiled(samples, GRID), cmap="gray_r", vmin=0, vmax=1)
    left.set_title("samples of the variational one: random codes, decoded")
    left.set_axis_off()
    right.set_title("the plane of its codes: where it puts the test images")
    for digit in range(10):
        own = codes[classes == digit]
        color = f"C{digit}"
        right.scatter(*own.T, s=20, color=color, alpha=0.6, linewidths=0)
        if len(own):
            style = {"facecolor": "white", "edgecolor": color, "alpha": 0.9, "pad": 1.5}
            right.text(*np.median(own, 0), str(digit), color=color, ha="center", va="center",
                       fontweight="bold", bbox=style)  # fmt: skip
    right.set_aspect("equal", adjustable="datalim")
    right.grid(alpha=0.3)
    return figure


def draw_reconstructions(
    place: SubFigure, original: Array, found: dict[str, Array], shown: Array
) -> None:
    """For each model two rows: the originals that are shown, and below what it makes of them."""
    for axis, (name, images) in zip(place.subplots(len(found), 1), found.items(), strict=True):
        pair = np.concatenate([original[shown], images[shown]])
        axis.imshow(tiled(pair, len(shown)), cmap="gray_r", vmin=0, vmax=1)
        error = np.mean((original - images) ** 2)
        axis.set_ylabel(f"{name}\n{error:.4f}", rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    place.suptitle("test images, and below each its reconstruction, with the mean squared error")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="(default: %(default)s)")
    parser.add_argument("--latent", type=int, default=2, help="numbers in a code (default: 2)")
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the prior (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--out", type=Path, default=Path("autoencoder.png"), metavar="FILE",
                        help="the picture, .png, .svg or .pdf (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    for name in ("epochs", "latent"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if not 0 <= args.beta < float("inf"):
        parser.error("--beta must be 0 or more")
    if args.out.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"{args.out} must end in .png, .svg or .pdf")
    if not args.out.parent.is_dir():
        parser.error(f"there is no directory {args.out.parent}")
    try:
        import matplotlib.figure  # noqa: F401 - before the training, not after
    except ImportError:
        sys.exit('the picture needs matplotlib: pip install "tinygrad_tx[digits]"')

    images, test, classes = digits()
    tx.manual_seed(args.seed)
    trained = build(args.latent, args.beta)
    for name, model in trained.items():
        train(name, model, images, args.epochs)

    found = {name: reconstruct(model, test) for name, model in trained.items()}
    print(f"\nmean squared error of {len(test)} test images, given back from {args.latent} numbers")
    print(f"{'the mean image':14} {np.mean((test - images.mean(0)) ** 2):.4f}")
    for name, given in found.items():
        print(f"{name:14} {np.mean((test - given) ** 2):.4f}")

    variational = trained["variational"]
    assert isinstance(variational, models.VariationalAutoencoder)
    samples = variational.sample(GRID * GRID).numpy()
    figure = draw(test, found, samples, plane(variational, test), classes)
    figure.savefig(args.out, dpi=110)
    print(f"\nthe picture is in {args.out}")


if __name__ == "__main__":
    main()
