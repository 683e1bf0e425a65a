"""BERT: an encoder that learns by guessing masked words (Devlin et al., arXiv 1810.04805); RoBERTa
(arXiv 1907.11692) and the sentence encoders of MiniLM are configurations of it.

In: ids (B, T), int32 or int64, and masks that say which of them count. Out: vectors (B, T, D), one
for the whole text, logits (B, T, V), or a loss. Called by training and embedding, and by users.
Sizes in the comments: B texts, T positions, D = d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import nn
from ..arguments import check_fields, explain_init
from ..creation import arange, zeros
from ..dtypes import bool_, int64
from ..errors import DTypeError, ShapeError
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor
from .config import check, check_counts, check_ids, check_positive, check_rates
from .layers import EncoderLayer
from .objective import mean_loss
from .saving import Savable
from .tensor_parallel import logits, parallelize


@explain_init
@dataclass(frozen=True)
class BERTConfig:
    """The shape of a BERT; the defaults are those of the published base model.

    max_len: how many positions there are.
    type_vocab_size: kinds of segment that token_type_ids tell apart; 0: none.
    skip_padding: positions count the tokens that are not pad_id, as RoBERTa's do; they are at
        rows from pad_id + 1 on of a table that is as much longer.
    dropout: on embeddings and every sub-layer's output; attention_dropout on attention weights.
    pooler: it has the map that `pooled` applies. mlm: it has the head that `logits` applies.
    mask_id: the token that stands for a word to be guessed, where the model is trained so.
    tensor_parallel: ranks share feed-forwards and vocabulary (docs/distributed.md).
    """

    vocab_size: int
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 3072
    max_len: int = 512
    type_vocab_size: int = 2
    skip_padding: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    pooler: bool = True
    mlm: bool = True
    init_std: float = 0.02
    pad_id: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    mask_id: int | None = None
    tensor_parallel: bool = False

    # What the layers of encoders are told besides.
    norm = "post"
    attention_bias = True
    activation_dropout = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_len")
        check_positive(self, "init_std")
        check_counts(self, "type_vocab_size", "layer_norm_eps")
        check_rates(self, "dropout", "attention_dropout")
        check_ids(self, "pad_id", "bos_id", "eos_id", "mask_id")
        fits = self.d_model % self.n_heads == 0
        check("d_model", self.d_model, fits, f"a multiple of n_heads, {self.n_heads}")
        F.activation(self.activation)

    @property
    def n_positions(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_len

    @property
    def first_position(self) -> int:
        """The row of the table of positions that belongs to the first token."""
        return self.pad_id + 1 if self.skip_padding else 0

    def describe(self) -> str:
        """It in one line."""
        return (
            f"d_model {self.d_model}, {self.n_heads} heads, d_ff {self.d_ff}, {self.n_layers} "
            f"layers, dropout {self.dropout}"
        )


class Embeddings(nn.Module):
    """norm(word + position + kind of segment), then dropout. Padding's own vector gets no gradient
    here, as where published models were trained."""

    parallel_words = ("words",)

    def __init__(self, config: BERTConfig) -> None:
        self.config, d = config, config.d_model
        self.words = nn.Embedding(config.vocab_size, d, config.pad_id)
        unused = config.pad_id if config.skip_padding else None
        self.positions = nn.Embedding(config.max_len + config.first_position, d, unused)
        self.types = nn.Embedding(config.type_vocab_size, d) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(d, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """ids (B, T), token_type_ids (B, T) or None for zeros -> (B, T, D)."""
        length, most = ids.shape[1], self.config.max_len
        if length > most:
            raise ShapeError(
                f"BERT: {length} positions, but this model has max_len = {most}; shorten the text"
            )
        if self.config.skip_padding:
            counts = (ids != self.config.pad_id).to(int64)
            places = counts.cumsum(1) * counts + self.config.pad_id  # (B, T)
        else:
            places = arange(length, device=ids.device)
        x = self.words(ids)
        if self.types is not None:
            kinds = zeros(length, dtype=int64, device=ids.device)
            x = x + self.types(kinds if token_type_ids is None else token_type_ids)
        elif token_type_ids is not None:
            raise ShapeError("BERT: token_type_ids are given, but this model has no kinds of them")
        y: Tensor = self.dropout(self.norm(x + self.positions(places)))
        return y


class MaskedWords(nn.Module):
    """What the vectors say of the words: logits by the matrix of the embedding."""

    parallel_words = ("bias",)

    def __init__(self, config: BERTConfig) -> None:
        self.activation = F.activation(config.activation)
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.bias = nn.Parameter(zeros(config.vocab_size))

    def forward(self, x: Tensor, words: nn.Module) -> Tensor:
        """x (B, T, D), the embedding with a matrix (V, D) -> logits (B, T, V)."""
        return logits(self.norm(self.activation(self.dense(x))), words, self.bias)


class BERT(Savable):
    """model(ids) -> vectors (B, T, D). Matrices and embeddings start normal with standard deviation
    init_std."""

    def __init__(self, config: BERTConfig) -> None:
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.pooler = nn.Linear(config.d_model, config.d_model) if config.pooler else None
        self.mlm = MaskedWords(config) if config.mlm else None
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=config.init_std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        if config.tensor_parallel:
            parallelize(self)

    def forward(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """ids int (B, T) -> (B, T, D).

        attention_mask: int or bool (B, T), 1 or True where there is a token, 0 where there is
            padding; None: there is no padding.
        token_type_ids: int (B, T), the segment of each token; None: all of the first.
        """
        if ids.ndim != 2:
            raise ShapeError(f"BERT: ids must be (batch, length), not {ids.shape}")
        for name, given in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if given is not None and given.shape != ids.shape:
                raise ShapeError(f"BERT: {name} {given.shape} must be like ids, {ids.shape}")
        x = self.embeddings(ids, token_type_ids)
        mask = None if attention_mask is None else _mask(attention_mask)
        for layer in self.layers:
            x = layer(x, mask)
        found: Tensor = x
        return found

    @nn.scoped
    def pooled(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """tanh of a map of the first token's vector: (B, D), for the whole text."""
        if self.pooler is None:
            raise ShapeError("BERT: this model has no pooler (pooler=False)")
        y: Tensor = self.pooler(self(ids, attention_mask, token_type_ids)[:, 0]).tanh()
        return y

    @nn.scoped
    def logits(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, T, V): of the word at each position, for those that are masked."""
        if self.mlm is None:
            raise ShapeError("BERT: this model has no head for masked words (mlm=False)")
        x = self(ids, attention_mask, token_type_ids)
        y: Tensor = self.mlm(x, self.embeddings.words)
        return y

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The mean cross-entropy, in nats, of the words that are asked for, targets (B, T), those
        equal to -100 left out; 0 where all are."""
        return mean_loss(
            lambda: self.logits(ids, attention_mask, token_type_ids), targets, -100, label_smoothing
        )


def _mask(given: Tensor) -> Tensor:
    """int or bool (B, T) -> (B, 1, 1, T): True where there is a token."""
    if given.dtype.is_floating_point:
        raise DTypeError(f"BERT: attention_mask must be int or bool, not {given.dtype.name}")
    mask = given if given.dtype == bool_ else given != 0
    return mask.unsqueeze(1).unsqueeze(1)
