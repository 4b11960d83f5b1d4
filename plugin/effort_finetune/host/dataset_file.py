"""Which class of a host reads frames: found by what it does, for hosts rename it."""

from __future__ import annotations

import ast
from pathlib import Path

from effort_finetune.core.errors import UserError

NAME = "DeepfakeAbstractBaseDataset"
_LISTS, _READS = "collect_img_and_label_for_one_dataset", "load_rgb"


def find_dataset_class(training: Path) -> tuple[str, str]:
    """Returns module and name of the class that lists and reads single frames, from the files alone.

    Upstream's file and name come first; of others the first class that has the two methods of the contract.

    Args:
        training: The host's ``training/``.

    Raises:
        UserError: If no file of ``dataset/`` has such a class.
    """
    folder = training / "dataset"
    files = sorted(folder.glob("*.py"), key=lambda file: (file.stem != "abstract_dataset", file.name))
    found = [(f"dataset.{file.stem}", name) for file in files for name in _classes(file)]
    if not found:
        raise UserError(
            "the host has no dataset class",
            got=f"no class with {_LISTS} and {_READS} in {folder}",
            expected=NAME,
            next_step="loader: plugin, the default, needs none",
        )
    return next((each for each in found if each[1] == NAME), found[0])


def _classes(file: Path) -> list[str]:
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError):
        return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and {_LISTS, _READS} <= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    ]
