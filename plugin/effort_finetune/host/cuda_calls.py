"""A host's CUDA calls where there is no CUDA."""

from __future__ import annotations

from typing import Any


def make_cuda_harmless() -> None:
    """Where there is no CUDA: ``set_device`` and ``.cuda()`` do nothing, ``get_device_name`` is empty."""
    import torch

    if torch.cuda.is_available():
        return

    def itself(self: Any, *_: Any, **__: Any) -> Any:
        return self

    torch.cuda.set_device = lambda device: None
    torch.cuda.get_device_name = lambda device=None: ""
    torch.Tensor.cuda = itself  # type: ignore[method-assign]
    torch.nn.Module.cuda = itself  # type: ignore[method-assign]
