"""Autoencoders: dense, convolutional and variational. Each learns to give back what it was given,
through a code that is too small to hold all of it.

In: x (B, *input_shape), floating. Out: codes (B, L), reconstructions (B, *input_shape), or a loss.
Called by users; examples/autoencoder.py trains all three. Sizes: B samples, L = latent_size.

Sources: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks"
(2006); Masci et al., "Stacked convolutional auto-encoders" (2011); Kingma and Welling,
"Auto-encoding variational Bayes" (arXiv 1312.6114); Higgins et al., "beta-VAE" (2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .. import nn
from ..arguments import check_fields, explain_init, shown
from ..drawing import randn, randn_like
from ..errors import ShapeError
from ..nn import functional as F  # noqa: N812
from ..rules import whole
from ..tensor import Tensor, no_grad
from .config import check, check_positive


@explain_init
@dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of an Autoencoder.

    input_shape: the shape of a sample: (64,), or (1, 8, 8).
    latent_size: how many numbers a code has.
    hidden_sizes: the widths of the encoder's hidden layers; the decoder's are these in reverse.
    loss: "mse", the squared error; "bce", the binary cross-entropy, of values from 0 to 1.
    """

    input_shape: tuple[int, ...]
    latent_size: int = 32
    hidden_sizes: tuple[int, ...] = (256, 128)
    activation: str = "relu"
    loss: str = "mse"

    def __post_init__(self) -> None:
        _check(self)
        sizes = min(self.hidden_sizes, default=1) > 0
        check("hidden_sizes", self.hidden_sizes, sizes, "positive sizes")


@explain_init
@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """The shape of a ConvAutoencoder.

    input_shape: (channels, height, width) of a sample; no size need be even.
    latent_size: how many numbers a code has.
    channels: of the encoder's convolutions, each of which halves height and width.
    kernel_size: of every convolution, odd.
    batch_norm: True if batch normalization follows each convolution but the last.
    loss: "mse", the squared error; "bce", the binary cross-entropy, of values from 0 to 1.
    """

    input_shape: tuple[int, ...]
    latent_size: int = 32
    channels: tuple[int, ...] = (16, 32)
    kernel_size: int = 3
    batch_norm: bool = True
    activation: str = "relu"
    loss: str = "mse"

    def __post_init__(self) -> None:
        _check(self)
        images = len(self.input_shape) == 3
        check("input_shape", self.input_shape, images, "(channels, height, width)")
        sizes = min(self.channels, default=0) > 0
        check("channels", self.channels, sizes, "one positive size or more")
        odd = self.kernel_size > 0 and self.kernel_size % 2 == 1
        check("kernel_size", self.kernel_size, odd, "odd and positive")


@explain_init
@dataclass(frozen=True)
class VariationalAutoencoderConfig(AutoencoderConfig):
    """The shape of a VariationalAutoencoder: that of an Autoencoder, and

    loss: how values are distributed, given the code: "bce", Bernoulli; "mse", normal, variance 1.
    beta: the weight of the divergence from the prior; 1 makes the loss the negative evidence lower
        bound (ELBO), more of it makes codes more regular and reconstructions worse.
    """

    loss: str = "bce"
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("beta", self.beta, 0 <= self.beta < math.inf, "0 or more, and finite")


def _check(config: AutoencoderConfig | ConvAutoencoderConfig) -> None:
    """What all have in common."""
    check_fields(config)
    sizes = min(config.input_shape, default=0) > 0
    check("input_shape", config.input_shape, sizes, "one positive size or more")
    check_positive(config, "latent_size")
    check("loss", config.loss, config.loss in ("mse", "bce"), '"mse" or "bce"')
    F.activation(config.activation)


class Activation(nn.Module):
    """The activation that a configuration names, as a layer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return F.activation(self.name)(x)

    def describe(self) -> str:
        return self.name


def _dense(sizes: Sequence[int], activation: str) -> list[nn.Module]:
    """A linear map from each size to the next, with activations between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), Activation(activation)]
    return layers[:-1]


def _image_shapes(config: ConvAutoencoderConfig) -> list[tuple[int, ...]]:
    """(channels, height, width) before each stage of the encoder, and after the last."""
    shapes = [tuple(config.input_shape)]
    for channels in config.channels:
        shapes.append((channels, *((n + 1) // 2 for n in shapes[-1][1:])))
    return shapes


class Down(nn.Sequential):
    """A stage of the encoder: (B, C, H, W) -> (B, C', ceil(H / 2), ceil(W / 2))."""

    def __init__(self, config: ConvAutoencoderConfig, stage: int) -> None:
        (before, *_), (after, *_) = _image_shapes(config)[stage : stage + 2]
        k = config.kernel_size
        convolution = nn.Conv2d(before, after, k, 2, k // 2, bias=not config.batch_norm)
        super().__init__(convolution, *_after(config, after))


class Up(nn.Sequential):
    """The way back of a stage: (B, C', ceil(H / 2), ceil(W / 2)) -> (B, C, H, W). The last one ends
    in the convolution, for that is the reconstruction."""

    def __init__(self, config: ConvAutoencoderConfig, stage: int) -> None:
        (after, *size), (before, *_) = _image_shapes(config)[stage : stage + 2]
        k, bias = config.kernel_size, stage == 0 or not config.batch_norm
        more = [1 - n % 2 for n in size]  # without it sizes are 2 ceil(n / 2) - 1, which is odd
        convolution = nn.ConvTranspose2d(before, after, k, 2, k // 2, more, bias=bias)
        super().__init__(convolution, *(_after(config, after) if stage else ()))


def _after(config: ConvAutoencoderConfig, channels: int) -> list[nn.Module]:
    norm = [nn.BatchNorm2d(channels)] if config.batch_norm else []
    return [*norm, Activation(config.activation)]


class _Autoencoder(nn.Module):
    """The base of all: an encoder, and a decoder to samples, or for "bce" to their logits."""

    config: AutoencoderConfig | ConvAutoencoderConfig
    encoder: nn.Sequential
    decoder: nn.Sequential

    def _encoded(self, x: Tensor) -> Tensor:
        return self._run(self.encoder, x, "x", self.config.input_shape)

    def _decoded(self, z: Tensor) -> Tensor:
        return self._run(self.decoder, z, "z", [self.config.latent_size])

    def _run(self, layers: nn.Module, x: Tensor, name: str, shape: Sequence[int]) -> Tensor:
        if not isinstance(x, Tensor) or not x.ndim or x.shape[1:] != tuple(shape):
            kind, wanted = type(self).__name__, ", ".join(map(str, ("batch", *shape)))
            error = ShapeError if isinstance(x, Tensor) else TypeError
            raise error(f"{kind}: {name} must be a Tensor ({wanted}), not {shown(x)}")
        y: Tensor = layers(x)
        return y

    def _errors(self, z: Tensor, x: Tensor) -> Tensor:
        """The loss of each value of x, decoded from z: (B, *input_shape)."""
        of = F.mse_loss if self.config.loss == "mse" else F.binary_cross_entropy_with_logits
        return of(self._decoded(z), x, reduction="none")

    @nn.scoped
    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, L) -> samples (B, *input_shape); from 0 to 1 for loss="bce"."""
        y = self._decoded(z)
        return y.sigmoid() if self.config.loss == "bce" else y


class _Plain(_Autoencoder):
    """One whose code is a function of the sample."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, *input_shape) -> its reconstruction, of the same shape."""
        return self.decode(self.encode(x))

    @nn.scoped
    def encode(self, x: Tensor) -> Tensor:
        """x (B, *input_shape) -> codes (B, L)."""
        return self._encoded(x)

    @nn.scoped
    def loss(self, x: Tensor) -> Tensor:
        """The mean over all values of x (B, *input_shape): of squared errors for loss="mse", of
        binary cross-entropies (in nats, from the decoder's logits) for loss="bce"."""
        return self._errors(self._encoded(x), x).mean()


class Autoencoder(_Plain):
    """model(x) -> reconstruction, by linear maps with activations between."""

    def __init__(self, config: AutoencoderConfig) -> None:
        self.config = config
        sizes = [math.prod(config.input_shape), *config.hidden_sizes, config.latent_size]
        back = _dense(sizes[::-1], config.activation)
        self.encoder = nn.Sequential(nn.Flatten(), *_dense(sizes, config.activation))
        self.decoder = nn.Sequential(*back, nn.Unflatten(1, config.input_shape))


class ConvAutoencoder(_Plain):
    """model(x) -> reconstruction, of images: convolutions of stride 2 and a linear map to the code;
    a linear map and transposed convolutions back."""

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        self.config = config
        stages = range(len(config.channels))
        smallest = _image_shapes(config)[-1]
        to_code = nn.Linear(math.prod(smallest), config.latent_size)
        back = [nn.Linear(config.latent_size, math.prod(smallest)), Activation(config.activation)]
        up = [Up(config, stage) for stage in reversed(stages)]
        self.encoder = nn.Sequential(*(Down(config, s) for s in stages), nn.Flatten(), to_code)
        self.decoder = nn.Sequential(*back, nn.Unflatten(1, smallest), *up)


class VariationalAutoencoder(_Autoencoder):
    """An Autoencoder whose code is drawn from a normal distribution that the encoder gives, held to
    the standard normal one: codes that are drawn from that decode to new samples."""

    def __init__(self, config: VariationalAutoencoderConfig) -> None:
        self.config, self.beta = config, config.beta
        hidden = [math.prod(config.input_shape), *config.hidden_sizes]
        back = _dense([config.latent_size, *hidden[::-1]], config.activation)
        encoder = _dense([*hidden, 2 * config.latent_size], config.activation)
        self.encoder = nn.Sequential(nn.Flatten(), *encoder)
        self.decoder = nn.Sequential(*back, nn.Unflatten(1, config.input_shape))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, *input_shape) -> a reconstruction of the same shape: of codes that are drawn in
        training mode, of the mean codes in evaluation mode."""
        mean, log_var = self.encode(x)
        return self.decode(self.draw(mean, log_var) if self.training else mean)

    @nn.scoped
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, *input_shape) -> mean and log_var, the logarithm of the variance, of the normal
        distributions that its codes have: (B, L) each."""
        mean, log_var = self._encoded(x).chunk(2, -1)
        return mean, log_var

    @nn.scoped
    def draw(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """Codes (B, L), drawn so that gradients go through (reparametrisation, section 2.4)."""
        return mean + (0.5 * log_var).exp() * randn_like(mean)

    @nn.scoped
    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts of the loss of x (B, *input_shape), in nats, means over the samples. First
        -log p(x | z) of a code that is drawn, summed over the values of x: for "bce" of their
        cross-entropies, for "mse" of half the squared errors (without the constant log(2 pi) / 2).
        Then the divergence of the codes' distribution from the prior (appendix B)."""
        mean, log_var = self.encode(x)
        errors = self._errors(self.draw(mean, log_var), x).flatten(1).sum(1).mean()
        divergence = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1).mean()
        return errors if self.config.loss == "bce" else 0.5 * errors, divergence

    @nn.scoped
    def loss(self, x: Tensor) -> Tensor:
        """The negative ELBO where beta is 1: the first of terms(x) + beta * the second."""
        errors, divergence = self.terms(x)
        return errors + self.beta * divergence

    @no_grad()
    @nn.scoped
    def sample(self, n: int) -> Tensor:
        """n new samples (n, *input_shape): codes drawn from the prior, decoded."""
        like = next(self.parameters())
        size = (whole("sample: n", n), self.config.latent_size)
        return self.decode(randn(size, dtype=like.dtype, device=like.device))
