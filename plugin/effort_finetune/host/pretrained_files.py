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
    """A state dict with the values that the model under construction has by now.

    A constructor may copy, filter and index it as it would what its file holds. Modules that are in no other
    one yet answer first, the latest of them before the earlier; their parts answer for what else is asked.

    Args:
        modules: Modules made so far, in order.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self._modules = modules
        for module in reversed(_outermost(modules)):
            for part in (module, *module.children()):
                for key, value in part.state_dict().items():
                    self.setdefault(key, value)

    def __missing__(self, key: str) -> Any:
        if key in _WRAPPERS:
            return self
        for outermost in reversed(_outermost(self._modules)):
            for module in outermost.modules():
                with contextlib.suppress(AttributeError, KeyError):
                    return module.get_parameter(key).detach()
        raise KeyError(key)

    def pop(self, key: str, *default: Any) -> Any:
        """Takes a value out, one that :meth:`__missing__` finds as well."""
        if key in self or default:
            return super().pop(key, *default)
        return self[key]


def _outermost(modules: list[nn.Module]) -> list[nn.Module]:
    inside = {id(part) for module in modules for part in module.children()}
    return [module for module in modules if id(module) not in inside]


@contextlib.contextmanager
def pretrained_replaced() -> Iterator[None]:
    """Inside: ``torch.load`` and downloads give :class:`OwnValues`, and ``load_state_dict`` loads nothing."""
    made: list[nn.Module] = []
    construct = nn.Module.__init__

    def recorded(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        made.append(self)

    def load_state_dict(self: nn.Module, state: Any, *_: Any, **__: Any) -> Any:
        missing = [key for key in self.state_dict() if key not in state]  # some constructors check these
        return nn.modules.module._IncompatibleKeys(missing, [])

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
def pretrained_read(typed_in: Path) -> Iterator[None]:
    """Inside: ``torch.load`` finds what is not here where the command was typed, and on the CPU CUDA's."""
    load = torch.load

    def found(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str | os.PathLike) and not os.path.exists(file) and (typed_in / file).exists():
            file = typed_in / file
        if not args and not torch.cuda.is_available():
            kwargs.setdefault("map_location", "cpu")
        return load(file, *args, **kwargs)

    with mock.patch.object(torch, "load", found):
        yield
