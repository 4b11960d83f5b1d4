"""Builds a host's detector without the pretrained files that its constructor reads.

Hosts' detectors load ImageNet or CLIP weights while they are made, from paths of their authors' machines.
Where a checkpoint brings every weight, these would be overwritten: the fresh model's own values stand in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

_WRAPPERS = frozenset({"state_dict", "model_state_dict", "model_state", "model"})


class OwnValues(dict[str, Any]):
    """An empty state dict; a key that is asked for has the value of the model under construction.

    Args:
        modules: Modules made so far, in order; the latest that has the parameter answers.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self._modules = modules

    def __missing__(self, key: str) -> Any:
        if key in _WRAPPERS:
            return self
        for module in reversed(self._modules):
            with contextlib.suppress(AttributeError, KeyError):
                return module.get_parameter(key).detach().clone()
        raise KeyError(key)

    def pop(self, key: str, *default: Any) -> Any:
        """The value as by ``[key]``: constructors take single tensors out before they load the rest."""
        try:
            return self[key]
        except KeyError:
            if default:
                return default[0]
            raise


@contextlib.contextmanager
def pretrained_replaced() -> Iterator[None]:
    """Inside: ``torch.load`` and downloads give :class:`OwnValues`; an empty state dict loads nothing."""
    made: list[nn.Module] = []
    construct, load_state = nn.Module.__init__, nn.Module.load_state_dict

    def recorded(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        made.append(self)

    def load_state_dict(self: nn.Module, state: Any, *args: Any, **kwargs: Any) -> Any:
        if not state:
            return nn.modules.module._IncompatibleKeys([], [])
        return load_state(self, state, *args, **kwargs)

    def values(*_: Any, **__: Any) -> OwnValues:
        return OwnValues(made)

    with (
        mock.patch.object(nn.Module, "__init__", recorded),
        mock.patch.object(nn.Module, "load_state_dict", load_state_dict),
        mock.patch.object(torch, "load", values),
        mock.patch.object(torch.hub, "download_url_to_file", return_value=None),
    ):
        yield


@contextlib.contextmanager
def pretrained_read(root: Path) -> Iterator[None]:
    """Inside: ``torch.load`` finds relative paths in the host's root, and on the CPU what CUDA wrote."""
    load = torch.load

    def found(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str | os.PathLike) and not os.path.exists(file):
            file = root / file
        if not args and not torch.cuda.is_available():
            kwargs.setdefault("map_location", "cpu")
        return load(file, *args, **kwargs)

    with mock.patch.object(torch, "load", found):
        yield
