"""Floor 2: the op records, one file per family. Importing this package registers all of them."""

from .attention import ATTENTION, ATTENTION_GRAD
from .convolution import CONVOLUTION
from .create import ARANGE, FULL
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
from .loss import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, CROSS_ENTROPY_GRAD
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
    LOG_SIGMOID,
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
from .movement import BROADCAST, CONCAT, FLIP, PAD, PERMUTE, RESHAPE, SLICE, SLICE_WRITE, UNBIND
from .norm import LAYER_NORM, LAYER_NORM_GRAD
from .random import KEEP, NORMAL, RANDINT, UNIFORM
from .reduce import ALL, ANY, ARGMAX, ARGMIN, CUMSUM, MAX, MIN, SUM
from .softmax import LOG_SOFTMAX, LOG_SOFTMAX_GRAD, LOGSUMEXP, SOFTMAX, SOFTMAX_GRAD
from .update import ADAM, SGD, SGD_MOMENTUM
from .windows import FOLD, WINDOW_MAX, WINDOW_SUM, WINDOWS

__all__ = [
    "ABS", "ADAM", "ADD", "ALL", "AND", "ANY", "ARANGE", "ARGMAX", "ARGMIN", "ARGSORT", "ARGTOPK",
    "ATTENTION", "ATTENTION_GRAD", "BINARY_CROSS_ENTROPY", "BROADCAST", "CLIP", "CONCAT",
    "CONVOLUTION", "COPY", "COS", "CROSS_ENTROPY", "CROSS_ENTROPY_GRAD", "CUMSUM", "DIV", "EQ",
    "ERF", "EXP", "EXPM1", "FLIP", "FLOOR", "FLOOR_DIV", "FOLD", "FULL", "GE", "GELU", "GELU_TANH",
    "GT", "INDEX_ADD", "INDEX_PUT", "ISFINITE", "ISINF", "ISNAN", "KEEP", "LAYER_NORM",
    "LAYER_NORM_GRAD", "LE", "LOG", "LOG1P", "LOGSUMEXP", "LOG_SIGMOID", "LOG_SOFTMAX",
    "LOG_SOFTMAX_GRAD", "LT", "MATMUL", "MAX", "MAXIMUM", "MIN", "MINIMUM", "MUL", "NE", "NEG",
    "NORMAL", "NOT", "OR", "PAD", "PERMUTE", "POW", "RANDINT", "RELU", "REMAINDER", "RESHAPE",
    "RSQRT", "SCATTER_ADD", "SGD", "SGD_MOMENTUM", "SIGMOID", "SIGN", "SILU", "SIN", "SLICE",
    "SLICE_WRITE", "SOFTMAX", "SOFTMAX_GRAD", "SQRT", "SUB", "SUM", "TAKE", "TAKE_ALONG", "TANH",
    "UNBIND", "UNIFORM", "UPDATE", "WHERE", "WINDOWS", "WINDOW_MAX", "WINDOW_SUM", "WRAP_INDEX",
    "XOR",
]  # fmt: skip
