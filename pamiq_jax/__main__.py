"""`python -m pamiq_jax` is the command `pamiq-jax`."""

from __future__ import annotations

import sys

from pamiq_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
