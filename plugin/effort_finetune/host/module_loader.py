"""Imports single modules of a host under upstream's names, without running its packages' ``__init__``.

``import dataset`` runs ten dataset modules (one asks for a GPU's name, one opens a landmark file) and
``import detectors`` runs 35 detectors and leaves autograd's anomaly mode on. A module imported through a
bare parent package runs none of that. Modules that the host itself has loaded already are used as they
are, so that there is never a second class of one name.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import torch

from effort_finetune.core.errors import UserError
from effort_finetune.host.lazy_packages import lazy_package
from effort_finetune.host.missing_packages import missing_package

#: Top-level modules of a host once ``training/`` is on the path.
TOP_LEVEL = frozenset(
    {"config", "dataset", "detectors", "lib", "logger", "loss", "metrics", "networks", "optimizor"}
    | {"trainer", "training", "utils"}
)


class ModuleLoader:
    """Loads modules of the host at ``root`` and keeps them.

    Args:
        root: The host's root folder.
    """

    def __init__(self, root: Path) -> None:
        self._training = root / "training"
        self._loaded: dict[str, types.ModuleType] = {}
        self._kept: dict[str, types.ModuleType] = {}

    def load(self, name: str) -> types.ModuleType:
        """Returns a module by upstream's name, e.g. ``"metrics.utils"``.

        Raises:
            UserError: If the host has no such file, or importing it fails; one line with the reason.
        """
        if name in self._loaded:
            return self._loaded[name]
        file = self._file(name)
        if not file.is_file():
            raise UserError(f"the host has no {name}", got=f"no file {file}")
        module = _already_loaded(file, name)
        if module is None:
            module = self._import(name, file)
        self._loaded[name] = module
        return module

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Inside: host names mean this host, with lazy parent packages; outside: nothing has changed.

        A module of this host that was imported inside stays in ``sys.modules`` where the name was free, so
        that a later real ``import dataset`` finds the same class; the parents never stay. ``sys.path``
        (a host appends to it) and anomaly mode are put back.
        """
        training = self._training
        anomaly = torch.is_anomaly_enabled()
        path = list(sys.path)
        hidden = {
            name: module
            for name, module in sys.modules.items()
            if name.partition(".")[0] in TOP_LEVEL and not _belongs(module, training)
        }
        parents = {
            name: lazy_package(name, training / name)
            for name in TOP_LEVEL
            if (training / name).is_dir() and (name in hidden or name not in sys.modules)
        }
        for name in hidden:
            del sys.modules[name]
        known = set(sys.modules)
        sys.modules.update(self._kept)
        sys.modules.update(parents)
        try:
            yield
        finally:
            for name in set(sys.modules) - known:
                if name.partition(".")[0] in TOP_LEVEL:
                    _fix_path(sys.modules[name])
            for name, module in parents.items():
                if sys.modules.get(name) is module:
                    del sys.modules[name]
            # Another host's modules get their names back; what was imported here is kept by the loader.
            taken = {name.partition(".")[0] for name in hidden}
            for name in set(sys.modules) - known:
                if name.partition(".")[0] in taken:
                    self._kept[name] = sys.modules.pop(name)
            sys.modules.update(hidden)
            sys.path[:] = path
            torch.autograd.set_detect_anomaly(anomaly)

    def _file(self, name: str) -> Path:
        return self._training.joinpath(*name.split(".")).with_suffix(".py")

    def _import(self, name: str, file: Path) -> types.ModuleType:
        with self.scope():
            try:
                return importlib.import_module(name)
            except UserError:
                raise
            except ModuleNotFoundError as error:
                raise missing_package(error.name or str(error), f"{name} module", str(error)) from error
            except Exception as error:
                raise UserError(
                    f"the host's {name} cannot be imported",
                    got=f"{type(error).__name__}: {error}",
                    next_step="effort-finetune doctor names the versions this host works with",
                ) from error


def _already_loaded(file: Path, name: str) -> types.ModuleType | None:
    """The module made from ``file``, under upstream's short name or as ``training.<name>``."""
    for candidate in (name, f"training.{name}"):
        module = sys.modules.get(candidate)
        origin = getattr(module, "__file__", None)
        if module is not None and origin and Path(origin).resolve() == file.resolve():
            return module
    return None


def _fix_path(module: types.ModuleType) -> None:
    """Gives a folder without ``__init__.py`` a plain path: its own is asked of its parent, which goes."""
    path = getattr(module, "__path__", None)
    if path is not None and not isinstance(path, list):
        module.__path__ = list(path)


def _belongs(module: types.ModuleType, training: Path) -> bool:
    origin = getattr(module, "__file__", None)
    if origin:
        return training.resolve() in Path(origin).resolve().parents
    return any(training.resolve() in Path(p).resolve().parents for p in getattr(module, "__path__", ()))
