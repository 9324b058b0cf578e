"""The command ``archivecolor``, and ``python -m archivecolor``, for use with ``torchrun -m`` among others."""

from __future__ import annotations

import signal
import sys


def run() -> None:
    """The command line; Ctrl-C or SIGTERM before it is even imported ends it as quietly as later on."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from archivecolor.cli import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
