"""Cuts faces out of videos: ``python preprocessing/preprocess.py NAME --help``."""

import sys

from effort_finetune.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "crop", *sys.argv[1:]], script=__file__))
