"""Fine-tunes Effort in this DeepfakeBench: ``python training/finetune.py --help``."""

import sys

from effort_finetune.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["finetune", *sys.argv[1:]], script=__file__))
