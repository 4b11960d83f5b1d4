"""Stands in for packages that a host's module imports but this environment lacks.

A host's dataset module imports whatever its authors had at hand: ``dlib`` for a detector that is never
called, ``skimage`` for nothing at all, ``torchvision`` for two one-line transforms. Refusing to start
for these would bring the host's dependencies back. So an absent package becomes an object that raises
one line, naming the package and the pip command, the moment it is *used*; and ``torchvision.transforms``,
whose wheel must match the torch build to the digit, is replaced by the two transforms hosts use, equal
to the bit. Every stand-in is listed in a result's host block.
"""

from __future__ import annotations

import ast
import importlib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effort_finetune.core.errors import UserError

#: Import names whose package on the index has another name.
PIP_NAMES = {
    "clip": "git+https://github.com/openai/CLIP.git",  # PyPI's clip is another project
    "cv2": "opencv-python-headless",
    "dlib": "dlib-bin",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "efficientnet_pytorch": "efficientnet-pytorch",
    "pytorchvideo": "pytorchvideo",
}


class AbsentModule(types.ModuleType):
    """A module that is not there; any use of it raises :class:`UserError`."""

    def __init__(self, name: str, importer: str, reason: str) -> None:
        super().__init__(name)
        self.importer, self.reason = importer, reason
        self.__path__: list[str] = []

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise missing_package(self.__name__, self.importer, self.reason)


def missing_package(module: str, importer: str, reason: str) -> UserError:
    """Returns the one line for a package that a host's module cannot do without."""
    top = module.partition(".")[0]
    return UserError(
        f"the host's {importer} needs the package {top!r}",
        got=reason,
        next_step=f"pip install {PIP_NAMES.get(top, top)}",
    )


class ToTensor:
    """``torchvision.transforms.ToTensor`` for what hosts give it: uint8 or float arrays.

    uint8 [H, W, C] becomes float32 [C, H, W] in [0, 1]; other dtypes are only transposed.
    """

    def __call__(self, image: Any) -> torch.Tensor:
        """Returns ``image`` ([H, W] or [H, W, C], array or PIL image) as a [C, H, W] tensor."""
        array = np.asarray(image)
        array = array[:, :, None] if array.ndim == 2 else array
        tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
        return tensor.to(torch.float32).div(255) if tensor.dtype == torch.uint8 else tensor


class Normalize:
    """``torchvision.transforms.Normalize``: ``(x - mean) / std`` per channel of [..., C, H, W]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns a normalised copy of ``tensor``."""
        mean = torch.as_tensor(self.mean, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
        std = torch.as_tensor(self.std, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
        return (tensor - mean) / std


def stand_ins(modules: Sequence[str], importer: str) -> dict[str, types.ModuleType]:
    """Imports each of ``modules`` and returns stand-ins for those that cannot be.

    Args:
        modules: Absolute module names that a host's file imports, e.g. ``"torchvision.transforms"``.
        importer: That file's name, for the message.

    Returns:
        Module name to stand-in, parents included; empty when everything is installed and works.

    Raises:
        UserError: If a package is installed but breaks while it is imported, and has no stand-in.
    """
    result: dict[str, types.ModuleType] = {}
    for name in modules:
        top = name.partition(".")[0]
        if top in result and not name.startswith("torchvision.transforms"):
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            reason = f"no module named {error.name!r}"
            if error.name != name and error.name is not None and error.name != top:
                reason += f", which {top!r} needs"
        except Exception as error:  # a broken wheel may raise anything at all
            if top != "torchvision":
                raise missing_package(name, importer, f"{type(error).__name__}: {error}") from error
            reason = f"{type(error).__name__}: {error}"
        else:
            continue
        result.setdefault(top, AbsentModule(top, importer, reason))
        if name != top:
            stand_in = AbsentModule(name, importer, reason)
            if name == "torchvision.transforms":
                stand_in.__dict__.update(ToTensor=ToTensor, Normalize=Normalize)
            result[name] = stand_in
            setattr(result[top], name.partition(".")[2], stand_in)
    return result


def absolute_imports(file: Path) -> list[str]:
    """Returns the absolute module names a file imports at its top level, in order, each once.

    ``from a import b`` counts as ``a.b`` when ``a`` is ``torchvision`` (its ``transforms`` is a module)
    and as ``a`` otherwise.
    """
    tree = ast.parse(file.read_bytes(), filename=str(file))
    names: dict[str, None] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            names.update({alias.name: None for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "torchvision":
                names.update({f"torchvision.{alias.name}": None for alias in node.names})
            else:
                names[node.module] = None
    return list(names)
