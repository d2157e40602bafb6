"""`python -m atelier`: the library from a terminal."""

from __future__ import annotations

import sys

from .shell.main import main

if __name__ == "__main__":
    sys.exit(main())
