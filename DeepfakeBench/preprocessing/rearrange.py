"""Divides crops into splits and writes the JSON index: ``python preprocessing/rearrange.py NAME --help``."""

import sys

from effort_finetune.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "index", *sys.argv[1:]], script=__file__))
