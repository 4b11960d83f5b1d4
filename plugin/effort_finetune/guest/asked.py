"""What a host's script was asked for: its command line and the YAML that it names, read before it does.

This runs at the start of every run of every detector: nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

PLUGIN_NAME = "effort_finetune"


@dataclass(frozen=True)
class Asked:
    """A run of a host's script.

    Attributes:
        script: ``train.py`` or ``test.py``, absolute.
        argv: The command line without the script.
        yaml_path: The detector's YAML, as typed.
        tree: What it holds.
    """

    script: Path
    argv: tuple[str, ...]
    yaml_path: Path
    tree: dict[str, Any]

    @property
    def mode(self) -> Literal["train", "test"]:
        """Which of the two scripts it is."""
        return "test" if self.script.stem == "test" else "train"

    @property
    def own_detector(self) -> bool:
        """Whether the detector is ours."""
        return bool(self.tree.get("model_name") == PLUGIN_NAME)

    @property
    def trainer(self) -> str | None:
        """The trainer: by flag, else by the YAML, else ours for our detector and the host's for others."""
        flag = self.flag("trainer")
        if flag is not None:
            return None if flag.lower() in ("null", "none", "~", "") else flag
        named = self.tree.get("trainer", PLUGIN_NAME if self.own_detector else None)
        return None if named is None else str(named)

    @property
    def is_ours(self) -> bool:
        """Whether our detector or our trainer takes part; ``test.py`` has no trainer."""
        return self.own_detector or (self.mode == "train" and self.trainer == PLUGIN_NAME)

    @property
    def is_whole_job(self) -> bool:
        """Whether nothing of the run is the host's."""
        return self.own_detector and (self.mode == "test" or self.trainer is not None)

    @property
    def wants_help(self) -> bool:
        """Whether ``-h`` or ``--help`` is there."""
        return bool({"-h", "--help"} & set(self.argv))

    def flag(self, name: str) -> str | None:
        """The word after ``--name`` or in ``--name=word``; ``None`` when the flag is not there."""
        for index, word in enumerate(self.argv):
            flag, equals, value = word.partition("=")
            if flag == f"--{name}":
                return value if equals else next(iter(self.argv[index + 1 : index + 2]), "")
        return None


def read_asked(script: Path, argv: Sequence[str]) -> Asked | None:
    """Reads what a script was asked for; ``None`` where it names no YAML that can be read.

    The script says itself what is wrong with a file that is not there or is no YAML.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--detector_path")
    try:
        path = parser.parse_known_args(list(argv))[0].detector_path
    except SystemExit:  # a flag without its value, which the script's own parser is about to tell
        return None
    if path is None or not Path(path).is_file():
        return None
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return None
    return Asked(script, tuple(argv), Path(path), tree) if isinstance(tree, dict) else None
