"""The way in: ``rotator`` and ``python -m rotator``."""

from __future__ import annotations

import sys

from rotator import cli
from rotator.cli import leaving


def main() -> None:
    code = cli.main(sys.argv[1:])
    leaving.soon(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
