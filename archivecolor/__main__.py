"""``python -m archivecolor``: the command line, for use with ``torchrun -m`` among others."""

from archivecolor.cli import main

if __name__ == "__main__":
    main()
