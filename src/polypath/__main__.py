"""``python -m polypath`` is ``polypath``."""

import sys

from polypath.cli import main

if __name__ == "__main__":
    sys.exit(main())
