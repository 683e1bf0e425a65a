"""T5: an encoder-decoder Transformer whose positions are distances, each of which adds a learned
number to the scores of attention (Raffel et al., arXiv 1910.10683).

In: source ids (B, S) and target ids (B, T), int, padded on the right with pad_id. Out: logits
(B, T, V), or a loss. Sizes in the comments: D = d_model, H heads, N rows in decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import nn
from ..arguments import check_fields, explain_init
from ..creation import arange, full, tensor, where
from ..dtypes import int64
from ..nn import KVCache
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor, no_grad
from .config import check, check_counts, check_ids, check_positive, check_rates
from .encoder_decoder import DecoderState, EncoderDecoder
from .layers import FeedForward, GatedFeedForward
from .positions import Distances
from .stepwise import Start
from .tensor_parallel import logits, parallelize


@explain_init
@dataclass(frozen=True)
class T5Config:
    """The shape of a T5; the defaults are those of the published small model.

    d_kv: the width of a head; None: d_model / n_heads.
    n_decoder_layers: None: n_layers.
    n_buckets: distances are told apart in so many groups, those from max_distance on not at all.
    gated: the feed-forward is down(activation(gate(x)) * up(x)), as in version 1.1, where the
        activation is "gelu_tanh".
    tie_embeddings: source, target and output share one matrix; False: the output has its own.
    scale_output: the last vectors are multiplied by d_model^-0.5; None: if tie_embeddings is set.
    dropout: on embeddings, attention weights, inside the feed-forward, and on sub-layers' outputs.
    bos_id: the token that targets begin with, which for T5 is that of padding.
    max_len: the most tokens of a source that is translated.
    tensor_parallel: ranks share feed-forwards and vocabulary (docs/distributed.md).
    """

    vocab_size: int
    d_model: int = 512
    n_layers: int = 6
    n_heads: int = 8
    d_ff: int = 2048
    d_kv: int | None = None
    n_decoder_layers: int | None = None
    n_buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.1
    layer_norm_eps: float = 1e-6
    activation: str = "relu"
    gated: bool = False
    tie_embeddings: bool = True
    scale_output: bool | None = None
    max_len: int = 1024
    pad_id: int = 0
    bos_id: int = 0
    eos_id: int = 1
    tensor_parallel: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "d_model", "n_heads", "d_ff", "d_kv", "max_len")
        check_counts(self, "n_layers", "n_decoder_layers", "layer_norm_eps")
        check_rates(self, "dropout")
        fits = self.n_buckets >= 4 and self.n_buckets % 2 == 0
        check("n_buckets", self.n_buckets, fits, "even, and 4 or more")
        fits = self.max_distance > self.n_buckets // 2
        check("max_distance", self.max_distance, fits, f"above {self.n_buckets // 2}")
        check_ids(self, "pad_id", "bos_id", "eos_id")
        fits = self.d_kv is not None or self.d_model % self.n_heads == 0
        check("d_model", self.d_model, fits, f"a multiple of n_heads, {self.n_heads}")
        F.activation(self.activation)

    n_positions = None  # none is learned

    @property
    def src_vocab_size(self) -> int:
        """That of both sides."""
        return self.vocab_size

    @property
    def width(self) -> int:
        """The width of a head."""
        return self.d_model // self.n_heads if self.d_kv is None else self.d_kv

    @property
    def decoder_layers(self) -> int:
        """n_decoder_layers, or as many as the encoder has."""
        return self.n_layers if self.n_decoder_layers is None else self.n_decoder_layers

    @property
    def scaled(self) -> bool:
        """Whether outputs are scaled by d_model ** -0.5 before the logits."""
        return self.tie_embeddings if self.scale_output is None else self.scale_output

    def describe(self) -> str:
        """It in one line."""
        return (
            f"d_model {self.d_model}, {self.n_heads} heads, d_ff {self.d_ff}, "
            f"{self.n_layers} + {self.decoder_layers} layers, dropout {self.dropout}"
        )


class Attention(nn.Module):
    """Attention by heads of d_kv, whose scores are not scaled."""

    def __init__(self, config: T5Config) -> None:
        self.n_heads, self.dropout = config.n_heads, config.dropout
        inner = config.n_heads * config.width
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        """x (B, T, D) looks at memory (B, S, D). mask: bool or added, (B, H, T, S)."""
        return self.attend(x, self.project(memory), mask, is_causal)

    @nn.scoped
    def project(self, memory: Tensor) -> KVCache:
        """Keys and values (B, H, S, d_kv)."""
        return KVCache(self._heads(self.k(memory)), self._heads(self.v(memory)))

    @nn.scoped
    def attend(
        self, x: Tensor, seen: KVCache, mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        p = self.dropout if self.training else 0.0
        q = self._heads(self.q(x))
        heads = F.scaled_dot_product_attention(q, seen.k, seen.v, mask, p, is_causal, scale=1.0)
        y: Tensor = self.o(heads.transpose(1, 2).reshape(*x.shape[:2], -1))
        return y

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class Layer(nn.Module):
    """x + dropout(sub-layer(norm(x))) for self-attention, in decoders for attention to the source,
    and for the feed-forward."""

    def __init__(self, config: T5Config, decodes: bool) -> None:
        def norm() -> nn.RMSNorm:
            return nn.RMSNorm(config.d_model, config.layer_norm_eps)

        self.self_attn, self.norm1 = Attention(config), norm()
        self.cross_attn = Attention(config) if decodes else None
        self.norm2 = norm() if decodes else None
        inner = GatedFeedForward if config.gated else FeedForward
        self.ffn = inner(config.d_model, config.d_ff, config.activation, config.dropout, bias=False)
        self.norm3 = norm()
        self.dropout = nn.Dropout(config.dropout)

    def keys_of(self, memory: Tensor) -> KVCache:
        """The source's keys and values for attention to it."""
        assert self.cross_attn is not None
        return self.cross_attn.project(memory)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor | KVCache | None = None,
        mask: Tensor | None = None,
        own: KVCache | None = None,
        position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D). bias: added to the scores of self-attention. In decoders memory and its mask
        are of the source. In a step of decoding memory holds keys and values, and `own` those of
        the positions before, at a 0-d position."""
        y = self.norm1(x)
        if own is None or position is None:
            y = self.self_attn(y, y, bias, memory is not None)
        else:
            own.write(*self.self_attn.project(y), position)
            y = self.self_attn.attend(y, own, bias)
        x = x + self.dropout(y)
        if self.cross_attn is not None and self.norm2 is not None:
            y = self.norm2(x)
            if isinstance(memory, KVCache):  # a sentence's hypotheses are queries of one attention
                together = y.reshape(memory.k.shape[0], -1, y.shape[-1])
                y = self.cross_attn.attend(together, memory, mask).reshape(y.shape)
            else:
                y = self.cross_attn(y, memory, mask)
            x = x + self.dropout(y)
        found: Tensor = x + self.dropout(self.ffn(self.norm3(x)))
        return found


class Stack(nn.Module):
    """Layers between dropouts, and a norm after them."""

    def __init__(self, config: T5Config, count: int, decodes: bool) -> None:
        self.distances = Distances(
            config.n_buckets, config.max_distance, config.n_heads, directed=not decodes
        )
        self.layers = nn.ModuleList(Layer(config, decodes) for _ in range(count))
        self.norm = nn.RMSNorm(config.d_model, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)


class T5(EncoderDecoder):
    """model(src, tgt_in) -> logits. Matrices start normal, with the standard deviations of the
    published code."""

    config: T5Config
    parallel_words = ("shared", "lm_head")

    def __init__(self, config: T5Config) -> None:
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, config.n_layers, decodes=False)
        self.decoder = Stack(config, config.decoder_layers, decodes=True)
        self.lm_head: nn.Linear | None = None
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        inner, d = config.n_heads * config.width, config.d_model
        wide = {"q": (d * config.width) ** -0.5, "o": inner**-0.5}
        wide |= dict.fromkeys(("linear2", "down_proj"), config.d_ff**-0.5)
        for name, p in self.named_parameters():
            owner = name.split(".")[-2]
            if owner in ("shared", "lm_head"):
                nn.init.normal_(p)
            elif p.ndim == 2:
                nn.init.normal_(p, std=wide.get(owner, d**-0.5))
        if config.tensor_parallel:
            parallelize(self)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """src int (B, S), tgt_in int (B, T), beginning with bos_id -> logits (B, T, V): at t, of
        the target word that follows tgt_in[:, : t + 1]."""
        mask = self.source_mask(src)
        memory = self.encode(src, mask)
        self.check_target(tgt_in, src.shape[0])
        stack, length = self.decoder, tgt_in.shape[1]
        x, bias = stack.dropout(self.shared(tgt_in)), stack.distances(length, length)
        for layer in stack.layers:
            x = layer(x, bias, memory, mask)
        return self._logits(x)

    @nn.scoped
    def encode(self, src: Tensor, mask: Tensor) -> Tensor:
        """src (B, S) and its mask (B, 1, 1, S) -> memory (B, S, D)."""
        stack, length = self.encoder, src.shape[1]
        x = stack.dropout(self.shared(src))
        bias = where(mask, stack.distances(length, length), -1e30)
        for layer in stack.layers:
            x = layer(x, bias)
        y: Tensor = stack.dropout(stack.norm(x))
        return y

    # One token at a time; see stepwise.py
    @no_grad()
    @nn.scoped
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        """Encode sources (B, S) for up to max_new_tokens steps of `beam` hypotheses each."""
        mask = self.source_mask(ids, lengths)
        memory, stack = self.encode(ids, mask), self.decoder
        rows, config = ids.shape[0] * beam, self.config
        shape = (rows, config.n_heads, max_new_tokens, config.width)
        places = arange(max_new_tokens, device=ids.device)
        seen = places <= places.unsqueeze(1)  # (L, L)
        bias = where(seen, stack.distances(max_new_tokens, max_new_tokens), -1e30)
        state = DecoderState(
            tuple(KVCache.empty(shape, memory) for _ in stack.layers),
            tuple(layer.keys_of(memory) for layer in stack.layers),
            mask,
            bias.squeeze(0).transpose(0, 1),  # (L, H, L): of each query
        )
        first = full(rows, config.bos_id, dtype=int64, device=ids.device)
        return Start(state, first, tensor(0, device=ids.device))

    @no_grad()
    @nn.scoped
    def step(self, state: DecoderState, ids: Tensor, position: Tensor) -> Tensor:
        """The logits (N, V) of the tokens after ids (N,) at a 0-d position."""
        stack, x = self.decoder, self.decoder.dropout(self.shared(ids.unsqueeze(1)))  # (N, 1, D)
        bias = state.positions[position].unsqueeze(1)  # (H, 1, L)
        for layer, own, memory in zip(stack.layers, state.own, state.memory, strict=True):
            x = layer(x, bias, memory, state.mask, own, position)
        return self._logits(x).squeeze(1)

    def _logits(self, x: Tensor) -> Tensor:
        x = self.decoder.dropout(self.decoder.norm(x))
        if self.config.scaled:
            x = x * self.config.d_model**-0.5
        y: Tensor = self.lm_head(x) if self.lm_head else logits(x, self.shared)
        return y
