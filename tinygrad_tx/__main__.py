"""`python -m tinygrad_tx`: the same as `tinygrad-tx`."""

import sys

from .cli import main

sys.exit(main())
