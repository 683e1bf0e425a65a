"""`python -m tinygrad_tx`: the same as `tinygrad-tx`."""

import sys

from tinygrad_tx.cli import main

sys.exit(main())
