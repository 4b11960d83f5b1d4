"""Evaluates an Effort checkpoint in this DeepfakeBench: ``python training/evaluate_finetune.py --help``."""

import sys

from effort_finetune.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]], script=__file__))
