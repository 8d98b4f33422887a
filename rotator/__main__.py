"""The way in: ``rotator`` and ``python -m rotator``."""

from __future__ import annotations

import sys

from rotator import cli


def main() -> None:
    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
