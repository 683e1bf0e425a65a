"""Placeholder until the real one is written (helper 3 overwrites this file)."""
import math
import numpy as np
_erf = np.vectorize(math.erf, otypes=[np.float64])
def erf(xp, x, double):
    return _erf(x).astype(x.dtype) if x.size else x
