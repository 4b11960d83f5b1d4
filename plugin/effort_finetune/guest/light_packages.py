"""Makes a host's ``train.py`` and ``test.py`` start for our detector where they otherwise would not.

Their first lines import 35 detectors and ten dataset modules and name CUDA outright. A run of our
detector uses none of that, so its process gets ``detectors`` and ``dataset`` packages that hold what the
run uses, and CUDA calls that do nothing where there is no CUDA. Runs of other detectors never come here.
"""

from __future__ import annotations

import ast
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import torch

from effort_finetune.core.errors import UserError
from effort_finetune.guest.registry import register_plugin
from effort_finetune.host.host import Host

_BASE = "abstract_dataset"


def install_packages(host: Host, script: Path) -> None:
    """Puts light ``detectors`` and ``dataset`` packages of this host into ``sys.modules``.

    Args:
        host: The host ``script`` belongs to.
        script: ``train.py`` or ``test.py``; other dataset classes it imports by name become classes that
            raise one line when they are made.
    """
    register_plugin(host)
    detectors = _package("detectors", host.root / "training/detectors")
    detectors.DETECTOR = host.registry("DETECTOR")  # type: ignore[attr-defined]
    _install_dataset(host, script)
    _add_rank_filter(host.root / "training")


def mend_fork(host: Host, script: Path) -> None:
    """Adds what the fork's ``train.py`` imports and the fork does not have; nothing on other hosts."""
    if host.kind == "effort-fork":
        _install_dataset(host, script)
        _add_rank_filter(host.root / "training")


def _install_dataset(host: Host, script: Path) -> None:
    dataset = _package("dataset", host.root / "training/dataset")
    dataset.DeepfakeAbstractBaseDataset = host.dataset_class  # type: ignore[attr-defined]
    dataset.__all__ = ["DeepfakeAbstractBaseDataset"]  # type: ignore[attr-defined]
    for module, names in _dataset_imports(script).items():
        stub = types.ModuleType(f"dataset.{module}")
        stub.__dict__.update({name: _unavailable(name) for name in names})
        sys.modules[stub.__name__] = stub


def without_cuda() -> None:
    """Where there is no CUDA: ``set_device`` and ``.cuda()`` do nothing, ``get_device_name`` is empty."""
    if torch.cuda.is_available():
        return

    def itself(self: Any, *_: Any, **__: Any) -> Any:
        return self

    torch.cuda.set_device = lambda device: None
    torch.cuda.get_device_name = lambda device=None: ""
    torch.Tensor.cuda = itself  # type: ignore[method-assign]
    torch.nn.Module.cuda = itself  # type: ignore[method-assign]


def _package(name: str, folder: Path) -> types.ModuleType:
    package = types.ModuleType(name, "A host's package with only what an effort_finetune run uses.")
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return package


def _dataset_imports(script: Path) -> dict[str, list[str]]:
    """``from dataset.x import A`` in ``script``, as {x: [A]}, without the base class's module."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(script.read_bytes(), filename=str(script))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dataset."):
            module = (node.module or "").removeprefix("dataset.")
            if module != _BASE:
                found.setdefault(module, []).extend(alias.name for alias in node.names)
    return found


def _unavailable(name: str) -> type:
    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise UserError(
            f"{name} cannot be used with the detector effort_finetune",
            expected="no dataset_type in the detector's YAML",
        )

    return type(name, (), {"__init__": refuse})


def _add_rank_filter(training: Path) -> None:
    """The fork's ``train.py`` imports ``RankFilter`` from a ``logger.py`` that has none."""
    if str(training) not in sys.path:
        sys.path.insert(0, str(training))
    logger = importlib.import_module("logger")
    if not hasattr(logger, "RankFilter"):

        class RankFilter:
            """Lets only the records of one rank through."""

            def __init__(self, rank: int) -> None:
                self.rank = rank

            def filter(self, record: Any) -> bool:
                return torch.distributed.get_rank() == self.rank

        logger.RankFilter = RankFilter  # type: ignore[attr-defined]
