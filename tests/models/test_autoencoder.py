"""Autoencoders: what they compute, that they learn, compiled as eager, and what is wrong in one
line."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modes import running

import tinygrad_tx as tx
from tinygrad_tx import models
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.models import (
    AutoencoderConfig,
    ConvAutoencoderConfig,
    VariationalAutoencoder,
    VariationalAutoencoderConfig,
)

Array = np.ndarray[Any, Any]
SHAPE = (1, 7, 5)
EXAMPLE = Path(__file__).parents[2] / "examples" / "autoencoder.py"


def build(kind: str, loss: str) -> Any:
    """A small model, the same each time."""
    tx.manual_seed(0)
    if kind == "dense":
        return models.Autoencoder(AutoencoderConfig(SHAPE, 4, (16,), loss=loss))
    if kind == "conv":
        return models.ConvAutoencoder(ConvAutoencoderConfig(SHAPE, 4, (4, 6), loss=loss))
    config = VariationalAutoencoderConfig(SHAPE, 4, (16,), "gelu", loss, beta=0.1)
    return VariationalAutoencoder(config)


def crosses() -> tx.Tensor:
    """(35, 1, 7, 5): a row and a column of ones in each, at every place."""
    rows, columns = np.arange(7)[:, None], np.arange(5)
    images = [(rows == i) | (columns == j) for i in range(7) for j in range(5)]
    return tx.tensor(np.array(images, np.float32)[:, None])


def trainer(model: Any, mode: str) -> Callable[[tx.Tensor], tx.Tensor]:
    optimizer = tx.optim.Adam(model.parameters(), lr=0.01)

    def step(x: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model.loss(x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return running(step, mode)


@pytest.mark.parametrize(
    ("kind", "loss"), [("dense", "mse"), ("conv", "bce"), ("variational", "bce")]
)
def test_each_learns_compiled_as_eager(kind: str, loss: str) -> None:
    """The same losses, parameters and running statistics after some steps, with the same noise;
    after more of them images come back."""
    x = crosses()
    model, other = build(kind, loss), build(kind, loss)
    compiled, eager = trainer(model, "native"), trainer(other, "eager")
    found = []
    for step in (compiled, eager):
        tx.manual_seed(1)
        found.append([step(x).item() for _ in range(4)])
    np.testing.assert_allclose(*found, rtol=1e-5)
    for name, value in other.state_dict().items():
        got = model.state_dict()[name].numpy()
        np.testing.assert_allclose(got, value.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)
    for _ in range(250):
        compiled(x)
    with tx.no_grad():
        error = (model.eval()(x) - x).square().mean().item()
        mean_image = (x.mean(0) - x).square().mean().item()
    assert error < mean_image / 3


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_losses_are_means_over_all_values(kind: str) -> None:
    x = crosses()
    model = build(kind, "mse")
    wanted = np.mean((model(x) - x).numpy() ** 2)
    assert model.loss(x).item() == pytest.approx(wanted, rel=1e-5)
    model, x = build(kind, "bce"), x.numpy()
    p = model(tx.tensor(x)).numpy()
    wanted = -np.mean(x * np.log(p) + (1 - x) * np.log(1 - p))
    assert model.loss(tx.tensor(x)).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 1, 6)])
def test_images_of_any_size_come_back(shape: tuple[int, ...]) -> None:
    for kernel_size, batch_norm in ((1, True), (3, True), (5, False)):
        config = ConvAutoencoderConfig(shape, 3, (2, 3, 4), kernel_size, batch_norm)
        model = models.ConvAutoencoder(config)
        x = tx.rand(2, *shape)
        assert model.encode(x).shape == (2, 3)
        assert model(x).shape == x.shape
        # A bias for each map and norm, and none beside a norm.
        assert sum(p.ndim == 1 for p in model.parameters()) == 2 + (11 if batch_norm else 6)


def test_statistics_of_batches() -> None:
    """Means that training moves; evaluation reads them, and changes nothing."""
    x = crosses()[:8]
    model = build("conv", "mse")
    norm = model.encoder[0][1]
    conv = model.encoder[0][0](x)
    model.loss(x)
    wanted = 0.1 * conv.mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(norm.running_mean.numpy(), wanted, rtol=1e-5, atol=1e-7)
    model.eval()
    alone = [model(x[i : i + 1]).numpy() for i in range(len(x))]
    np.testing.assert_allclose(model(x).numpy(), np.concatenate(alone), rtol=1e-4, atol=1e-6)
    assert norm.num_batches_tracked.item() == 1


def numpy_terms(model: VariationalAutoencoder, x: Array, noise: Array) -> tuple[float, float]:
    """The loss's parts by hand, with the model's own encoder and decoder."""
    mean, log_var = (y.numpy() for y in model.encode(tx.tensor(x)))
    z = mean + np.exp(log_var / 2) * noise
    y = model.decode(tx.tensor(z)).numpy()  # of "bce": probabilities
    if model.config.loss == "bce":
        errors = -(x * np.log(y) + (1 - x) * np.log(1 - y))
    else:
        errors = (x - y) ** 2 / 2
    divergence = -(1 + log_var - mean**2 - np.exp(log_var)) / 2
    return errors.sum() / len(x), divergence.sum() / len(x)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_variational_loss_by_hand(loss: str) -> None:
    model = build("variational", loss).to(tx.float64)
    x = tx.rand(5, *SHAPE, dtype=tx.float64)
    tx.manual_seed(1)
    noise = tx.randn(5, 4, dtype=tx.float64).numpy()
    wanted = numpy_terms(model, x.numpy(), noise)
    tx.manual_seed(1)
    np.testing.assert_allclose([term.item() for term in model.terms(x)], wanted, rtol=1e-10)
    tx.manual_seed(1)
    assert model.loss(x).item() == pytest.approx(wanted[0] + 0.1 * wanted[1], rel=1e-10)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_variational_gradients(loss: str) -> None:
    """To second order through x; of the parameters by finite differences, in float64."""
    model = build("variational", loss).to(tx.float64)
    x = tx.rand(2, *SHAPE, dtype=tx.float64)

    def loss_of(x: tx.Tensor) -> tx.Tensor:
        tx.manual_seed(2)
        value: tx.Tensor = model.loss(x)
        return value

    assert tx.gradcheck(loss_of, x, order=2)
    loss_of(x).backward()
    ways = [(p, tx.randn(p.shape, dtype=tx.float64)) for p in model.parameters()]
    slope = sum((p.grad * way).sum().item() for p, way in ways)
    ends = []
    with tx.no_grad():
        for step in (1e-6, -2e-6):
            for p, way in ways:
                p.assign(p + step * way)
            ends.append(loss_of(x).item())
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


def test_samples_and_draws() -> None:
    model = build("variational", "bce").to(tx.float64)
    tx.manual_seed(3)
    samples = model.sample(6)
    assert samples.shape == (6, *SHAPE) and samples.dtype == tx.float64
    assert not samples.requires_grad and ((samples > 0) & (samples < 1)).all().item()
    tx.manual_seed(3)
    assert (model.decode(tx.randn(6, 4, dtype=tx.float64)) == samples).all().item()
    tx.manual_seed(3)
    assert (running(model.sample, "replay")(6) == samples).all().item()
    assert model.sample(0).shape == (0, *SHAPE)
    x = crosses()[:3].to(tx.float64)
    assert (model(x) != model(x)).any().item()  # drawn in training mode
    model.eval()
    assert (model(x) == model(x)).all().item()
    assert (model(x) == model.decode(model.encode(x)[0])).all().item()
    assert model.loss(x).item() != model.loss(x).item()  # a draw, as training sees it


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoencoderConfig(()), r"input_shape = \(\) must be one positive size or more"),
        (lambda: AutoencoderConfig((64, 0)), r"input_shape = \(64, 0\) must be one positive"),
        (lambda: AutoencoderConfig((64,), 0), "latent_size = 0 must be positive"),
        (lambda: AutoencoderConfig((64,), 2, (8, 0)), r"hidden_sizes = \(8, 0\) must be positive"),
        (lambda: AutoencoderConfig((64,), loss="l1"), 'loss = \'l1\' must be "mse" or "bce"'),
        (lambda: AutoencoderConfig((64,), activation="x"), "activation 'x' is unknown: use one"),
        (lambda: ConvAutoencoderConfig((64,)), r"must be \(channels, height, width\)"),
        (lambda: ConvAutoencoderConfig(SHAPE, channels=()), r"channels = \(\) must be one"),
        (lambda: ConvAutoencoderConfig(SHAPE, kernel_size=4), "kernel_size = 4 must be odd"),
        (lambda: VariationalAutoencoderConfig((64,), beta=-1), "beta = -1 must be 0 or more"),
        (lambda: VariationalAutoencoderConfig((64,), beta=float("nan")), "beta = nan must be 0"),
    ],
)
def test_settings_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
        make()


def test_what_is_no_batch_of_samples() -> None:
    model = build("variational", "bce")
    with pytest.raises(ShapeError, match=r"x must be a Tensor \(batch, 1, 7, 5\), not a Tensor"):
        model.loss(tx.zeros(2, 35))
    with pytest.raises(ShapeError, match=r"z must be a Tensor \(batch, 4\), not a Tensor \(4,\)"):
        model.decode(tx.zeros(4))
    with pytest.raises(TypeError, match=r"x must be a Tensor .*, not a list"):
        model.encode([1.0])
    with pytest.raises(TypeError, match="config must be a VariationalAutoencoderConfig, not a"):
        VariationalAutoencoder(AutoencoderConfig((64,)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="AutoencoderConfig: input_shape must be a tuple of ints"):
        AutoencoderConfig(64)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib"])
def test_the_example_says_what_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {"sklearn": ("sklearn", "sklearn.datasets"), "matplotlib": ("matplotlib.figure",)}
    for name in names[missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["autoencoder.py"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r'^[^\n]* pip install "tinygrad_tx\[digits\]"$'):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
