"""A host as one object: what the rest of the plugin may know of a DeepfakeBench checkout."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from effort_finetune.config import Settings, resolve
from effort_finetune.config.host_only_keys import HOST_ONLY_KEYS
from effort_finetune.core.errors import UserError
from effort_finetune.core.strict_yaml import read_yaml
from effort_finetune.host import git
from effort_finetune.host.dataset_file import find_dataset_class
from effort_finetune.host.marked_blocks import strip
from effort_finetune.host.recognise import recognise
from effort_finetune.host.registered_names import FOLDERS, FilledWhenAsked, registered

if TYPE_CHECKING:
    import numpy as np

    from effort_finetune.host.module_loader import ModuleLoader

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
        embedded: Whether it is the embedded host, or a copy of it.
        name: Its title for people: owner and name of the remote it came from, else its folder's name.
        commit: The commit checked out there, or ``None`` where no repository holds the host.
        dirty: Whether tracked files differ from that commit by more than what ``install`` put there, or
            ``None`` without a commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        facts = recognise(self.root)
        self.embedded = facts.embedded
        self.commit = git.commit(self.root, "training/detectors/__init__.py")
        self.name = "embedded DeepfakeBench" if self.embedded else _title(self.root, self.commit)
        self.dirty = None if self.commit is None else _is_dirty(self.root)
        self._registry_module = facts.registry_module

    @functools.cached_property
    def modules(self) -> ModuleLoader:
        """Imports single modules of the host."""
        from effort_finetune.host.module_loader import ModuleLoader  # imports torch; `install` needs none

        return ModuleLoader(self.root)

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {str(self.root)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_host, (self.root,)

    def registry(self, name: RegistryName) -> Any:
        """Returns one of the host's registries: ``data``, ``register_module(module_name=)``, ``[name]``.

        Raises:
            UserError: If the host has no registry of this name.
        """
        if self._registry_module is None:
            raise UserError(f"registry {name!r}", got=f"no registry module in {self.root / 'training'}")
        module = self.modules.load(self._registry_module)
        if not hasattr(module, name):
            raise UserError(f"registry {name!r}", got=f"none in the host's {self._registry_module}")
        return getattr(module, name)

    def fill_registries_when_asked(self) -> None:
        """Makes the registries import the module of a name the first time the name is asked for."""
        for name in FOLDERS:
            registry = self.registry(name)
            if not isinstance(registry.data, FilledWhenAsked):
                modules = registered(self.root / "training", name)
                registry.data = FilledWhenAsked(registry.data, modules, self.modules.load)

    @property
    def dataset_class(self) -> type:
        """The class that lists and reads frames, upstream's ``DeepfakeAbstractBaseDataset``.

        Raises:
            UserError: If there is none, or its module needs a package that is not installed.
        """
        module, name = find_dataset_class(self.root / "training")
        found: type = getattr(self.modules.load(module), name)
        return found

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
        import numpy as np

        function = self.modules.load("metrics.utils").get_test_metrics
        # What install added to its result is not the host's.
        function = getattr(function, "without_effort_finetune", function)
        return function(y_pred=np.array(y_pred), y_true=np.array(y_true), img_names=list(img_names))

    def default_settings(self, mode: Literal["train", "test"]) -> dict[str, Any]:
        """Returns the host's ``train_config.yaml`` or ``test_config.yaml``.

        A host without the second, or without ``label_dict`` in it, measures with the first one's.

        Raises:
            UserError: If the file is not YAML, not a mapping, or gives a key two values.
        """
        path = self.root / "training" / "config" / f"{mode}_config.yaml"
        if mode == "test" and not path.is_file():
            return self.default_settings("train")
        content = read_yaml(path, last_wins=HOST_ONLY_KEYS)
        if not isinstance(content, dict):
            raise UserError(str(path), got=type(content).__name__, expected="a mapping of settings")
        if mode == "test" and "label_dict" not in content:
            labels = self.default_settings("train").get("label_dict")
            return content if labels is None else {**content, "label_dict": labels}
        return content

    def settings(self, mode: Literal["train", "test"], **values: Any) -> Settings:
        """Returns settings on top of the host's own, as a command line would make them.

        Args:
            mode: Which of the host's default files applies.
            values: Keys with values, groups as mappings: ``nEpochs=3, optimizer={"lr": 1e-3}``.

        Raises:
            UserError: If a key is unknown or a value does not fit; all of them at once.
        """
        flags = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
        defaults = self.default_settings(mode)
        return resolve(flags=flags, yaml_path=None, host_defaults=defaults, host_root=self.root)

    def resolve(self, path: Path | str) -> Path:
        """Returns ``path`` as an absolute path; relative ones are relative to the host's root."""
        return (self.root / Path(path).expanduser()).resolve()

    def provenance(self) -> dict[str, Any]:
        """Returns the host block of a result: which host and at which commit."""
        return {
            "name": self.name,
            "kind": "embedded" if self.embedded else "checkout",
            "commit": self.commit,
            "dirty": self.dirty,
        }


def _title(root: Path, commit: str | None) -> str:
    """Owner and name of the repository a checkout came from; without a remote the folder's name."""
    remote = None if commit is None else git.remote(root)
    return remote or root.name or "DeepfakeBench"


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
