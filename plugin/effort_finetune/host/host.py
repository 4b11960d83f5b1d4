"""A host as one object: what the rest of the plugin may know of a DeepfakeBench checkout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from effort_finetune.core.errors import UserError
from effort_finetune.host import git
from effort_finetune.host.marked_blocks import strip
from effort_finetune.host.module_loader import ModuleLoader
from effort_finetune.host.recognise import HostKind, recognise

PLUGIN_NAME = "effort_finetune"

RegistryName = Literal["DETECTOR", "TRAINER", "BACKBONE", "LOSSFUNC"]


def open_host(root: Path | str) -> Host:
    """Opens the host at ``root``; nothing of it is imported yet.

    Raises:
        UserError: If ``root`` is not a host the plugin knows; the message says what is missing.
    """
    return Host(Path(root))


class Host:
    """A DeepfakeBench checkout.

    Args:
        root: The folder that holds ``training/``.

    Attributes:
        root: That folder, absolute.
        kind: ``embedded``, ``deepfakebench`` (SCLBD v2) or ``effort-fork``.
        name: The kind's name for people.
        commit: The commit checked out there, or ``None`` where no repository holds the host.
        dirty: Whether tracked files differ from that commit by more than what ``install`` put there, or
            ``None`` without a commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        known = recognise(self.root)
        self.kind: HostKind = known.kind
        self.name = known.title
        self.commit = git.commit(self.root, "training/train.py")
        self.dirty = None if self.commit is None else _is_dirty(self.root)
        self._registry_module = known.registry_module
        self._modules = ModuleLoader(self.root)

    def __repr__(self) -> str:
        return f"Host({self.kind!r}, {str(self.root)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_host, (self.root,)

    def registry(self, name: RegistryName) -> Any:
        """Returns one of the host's registries: ``data``, ``register_module(module_name=)``, ``[name]``.

        Raises:
            UserError: If the host has no registry of this name.
        """
        module = self._modules.load(self._registry_module)
        if not hasattr(module, name):
            raise UserError(f"registry {name!r}", got=f"none in the host's {self._registry_module}")
        return getattr(module, name)

    @property
    def dataset_class(self) -> type:
        """The host's ``DeepfakeAbstractBaseDataset``.

        Raises:
            UserError: If the module needs a package while it is imported that is not installed.
        """
        return self._modules.load("dataset.abstract_dataset").DeepfakeAbstractBaseDataset

    def get_test_metrics(
        self, y_pred: np.ndarray, y_true: np.ndarray, img_names: Sequence[str]
    ) -> dict[str, Any]:
        """Returns exactly what the host's ``get_test_metrics`` returns; the arguments are not changed.

        Args:
            y_pred: Probabilities of "fake", float [N].
            y_true: Labels, int [N].
            img_names: Frame paths as the dataset lists them, N strings.

        Raises:
            Exception: Whatever the host's code raises, e.g. for a single class.
        """
        function = self._modules.load("metrics.utils").get_test_metrics
        return function(y_pred=np.array(y_pred), y_true=np.array(y_true), img_names=list(img_names))

    def default_settings(self, mode: Literal["train", "test"]) -> dict[str, Any]:
        """Returns the host's ``train_config.yaml`` or ``test_config.yaml``.

        Raises:
            UserError: If the file is not valid YAML or not a mapping.
        """
        path = self.root / "training" / "config" / f"{mode}_config.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML", got=str(error)) from error
        if not isinstance(content, dict):
            raise UserError(str(path), got=type(content).__name__, expected="a mapping of settings")
        return content

    def resolve(self, path: Path | str) -> Path:
        """Returns ``path`` as an absolute path; relative ones are relative to the host's root."""
        return (self.root / Path(path).expanduser()).resolve()

    def provenance(self) -> dict[str, Any]:
        """Returns the host block of a result: which host, at which commit, and what was stood in for."""
        return {
            "name": self.name,
            "kind": self.kind,
            "commit": self.commit,
            "dirty": self.dirty,
            "stand_ins": dict(self._modules.stand_ins),
        }


def _is_dirty(root: Path) -> bool:
    return any(_differs(root, path) for path in git.modified(root))


def _differs(root: Path, path: str) -> bool:
    file = root / path
    if not file.is_file():
        return True
    try:
        return strip(file.read_bytes()) != git.committed(root, path)
    except UserError:  # a block of ours that was cut apart
        return True
