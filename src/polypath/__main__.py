"""``python -m polypath`` runs the command ``polypath``."""

import sys

from polypath.cli import main

if __name__ == "__main__":
    sys.exit(main())
