"""Packs crops into an LMDB: ``python preprocessing/dataset2lmdb.py NAME --help``."""

import sys

from effort_finetune.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "lmdb", *sys.argv[1:]], script=__file__))
