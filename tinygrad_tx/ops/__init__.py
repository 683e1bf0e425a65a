"""Floor 2: the op records, one file per family. Importing this package registers all of them."""

from .attention import ATTENTION, ATTENTION_GRAD
from .collective import (
    ALL_GATHER,
    ALL_REDUCE,
    COPY_TO_RANKS,
    FINISH_REDUCE,
    FROM_RANK,
    REDUCE_FROM_RANKS,
    REDUCE_SCATTER,
    START_ALL_REDUCE,
    START_REDUCE_SCATTER,
    TO_RANK,
)
from .convolution import CONVOLUTION
from .create import ARANGE, FULL
from .gather import (
    ARGSORT,
    ARGTOPK,
    INDEX_ADD,
    INDEX_MAX,
    INDEX_PUT,
    SCATTER_ADD,
    SEARCHSORTED,
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
    ATAN2,
    CEIL,
    CLIP,
    COPY,
    COS,
    COSH,
    DIV,
    ELU,
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
    LEAKY_RELU,
    LOG,
    LOG1P,
    LOG2,
    LOG10,
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
    ROUND,
    RSQRT,
    SIGMOID,
    SIGN,
    SILU,
    SIN,
    SINH,
    SOFTPLUS,
    SQRT,
    SUB,
    TAN,
    TANH,
    TRUNC,
    WHERE,
    XOR,
)
from .matmul import MATMUL
from .movement import BROADCAST, CONCAT, FLIP, PAD, PERMUTE, RESHAPE, SLICE, SLICE_WRITE, UNBIND
from .norm import LAYER_NORM, LAYER_NORM_GRAD
from .random import KEEP, NORMAL, RANDINT, UNIFORM
from .reduce import ALL, ANY, ARGMAX, ARGMIN, CUMPROD, CUMSUM, MAX, MIN, PROD, SUM
from .softmax import LOG_SOFTMAX, LOG_SOFTMAX_GRAD, LOGSUMEXP, SOFTMAX, SOFTMAX_GRAD
from .update import ADAM, SGD, SGD_MOMENTUM
from .windows import FOLD, WINDOW_MAX, WINDOW_SUM, WINDOWS

__all__ = [
    "ABS", "ADAM", "ADD", "ALL", "ALL_GATHER", "ALL_REDUCE", "AND", "ANY", "ARANGE", "ARGMAX",
    "ARGMIN", "ARGSORT", "ARGTOPK", "ATAN2", "ATTENTION", "ATTENTION_GRAD", "BINARY_CROSS_ENTROPY",
    "BROADCAST", "CEIL", "CLIP", "CONCAT", "CONVOLUTION", "COPY", "COPY_TO_RANKS", "COS", "COSH",
    "CROSS_ENTROPY", "CROSS_ENTROPY_GRAD", "CUMPROD", "CUMSUM", "DIV", "ELU", "EQ", "ERF", "EXP",
    "EXPM1", "FINISH_REDUCE", "FLIP", "FLOOR", "FLOOR_DIV", "FOLD", "FROM_RANK", "FULL", "GE",
    "GELU", "GELU_TANH", "GT", "INDEX_ADD", "INDEX_MAX", "INDEX_PUT", "ISFINITE", "ISINF", "ISNAN",
    "KEEP", "LAYER_NORM", "LAYER_NORM_GRAD", "LE", "LEAKY_RELU", "LOG", "LOG1P", "LOG2", "LOG10",
    "LOGSUMEXP", "LOG_SIGMOID", "LOG_SOFTMAX", "LOG_SOFTMAX_GRAD", "LT", "MATMUL", "MAX", "MAXIMUM",
    "MIN", "MINIMUM", "MUL", "NE", "NEG", "NORMAL", "NOT", "OR", "PAD", "PERMUTE", "POW", "PROD",
    "RANDINT", "REDUCE_FROM_RANKS", "REDUCE_SCATTER", "RELU", "REMAINDER", "RESHAPE", "ROUND",
    "RSQRT", "SCATTER_ADD", "SEARCHSORTED", "SGD", "SGD_MOMENTUM", "SIGMOID", "SIGN", "SILU", "SIN",
    "SINH", "SLICE", "SLICE_WRITE", "SOFTMAX", "SOFTMAX_GRAD", "SOFTPLUS", "SQRT",
    "START_ALL_REDUCE", "START_REDUCE_SCATTER", "SUB", "SUM", "TAKE", "TAKE_ALONG", "TAN", "TANH",
    "TO_RANK", "TRUNC", "UNBIND", "UNIFORM", "UPDATE", "WHERE", "WINDOWS", "WINDOW_MAX",
    "WINDOW_SUM", "WRAP_INDEX", "XOR",
]  # fmt: skip
