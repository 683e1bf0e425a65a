"""Floor 2: the op records, one file per family. Importing this package registers all of them."""

from .create import ARANGE, FULL
from .fused import (
    ATTENTION,
    ATTENTION_GRAD,
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRAD,
    LAYER_NORM,
    LAYER_NORM_GRAD,
    LOG_SOFTMAX,
    LOG_SOFTMAX_GRAD,
    LOGSUMEXP,
    SOFTMAX,
    SOFTMAX_GRAD,
)
from .gather import (
    ARGSORT,
    ARGTOPK,
    INDEX_ADD,
    INDEX_PUT,
    SCATTER_ADD,
    TAKE,
    TAKE_ALONG,
    UPDATE,
    WRAP_INDEX,
)
from .map import (
    ABS,
    ADD,
    AND,
    CLIP,
    COPY,
    COS,
    DIV,
    EQ,
    ERF,
    EXP,
    EXPM1,
    FLOOR,
    FLOOR_DIV,
    GE,
    GELU,
    GELU_TANH,
    GT,
    ISFINITE,
    ISINF,
    ISNAN,
    LE,
    LOG,
    LOG1P,
    LT,
    MAXIMUM,
    MINIMUM,
    MUL,
    NE,
    NEG,
    NOT,
    OR,
    POW,
    RELU,
    REMAINDER,
    RSQRT,
    SIGMOID,
    SIGN,
    SILU,
    SIN,
    SQRT,
    SUB,
    TANH,
    WHERE,
    XOR,
)
from .matmul import MATMUL
from .movement import BROADCAST, CONCAT, FLIP, PAD, PERMUTE, RESHAPE, SLICE, SLICE_WRITE
from .random import KEEP, NORMAL, RANDINT, UNIFORM
from .reduce import ALL, ANY, ARGMAX, ARGMIN, CUMSUM, MAX, MIN, SUM

__all__ = [name for name in dir() if name.isupper()]
