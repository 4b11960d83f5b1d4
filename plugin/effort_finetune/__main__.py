"""``python -m effort_finetune <command>``: the console command, where that is not on the path."""

from effort_finetune.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
