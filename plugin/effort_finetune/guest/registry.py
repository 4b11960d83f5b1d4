"""What a host's registries hold under the plugin's name: callables that import what they make when called.

``import detectors`` fills the registries in every run of a host. A run of another detector should neither
wait for transformers nor break where an old one is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from effort_finetune.core.errors import UserError
from effort_finetune.host.host import PLUGIN_NAME, Host, RegistryName

if TYPE_CHECKING:
    from effort_finetune.guest.trainer import EffortFinetuneTrainer
    from effort_finetune.model.detector import EffortFinetuneDetector


class DetectorFactory:
    """Stands in ``DETECTOR`` for :class:`~effort_finetune.model.detector.EffortFinetuneDetector`."""

    def __call__(self, *args: Any, **kwargs: Any) -> EffortFinetuneDetector:
        """Makes a detector; the arguments are the class's."""
        from effort_finetune.model.detector import EffortFinetuneDetector

        return EffortFinetuneDetector(*args, **kwargs)


class TrainerFactory:
    """Stands in ``TRAINER`` for :class:`~effort_finetune.guest.trainer.EffortFinetuneTrainer`.

    Args:
        host: The host whose own metrics the trainer adds to ours.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def __call__(self, *args: Any, **kwargs: Any) -> EffortFinetuneTrainer:
        """Makes a trainer; the arguments are the class's."""
        import torch

        from effort_finetune.guest.trainer import EffortFinetuneTrainer

        # A host's `import detectors` may have left it on, which halves the speed of training.
        torch.autograd.set_detect_anomaly(False)
        return EffortFinetuneTrainer(*args, **kwargs, host=self._host)


def register_plugin(host: Host) -> None:
    """Puts the plugin's detector and trainer into a host's registries, once; they are imported later.

    Raises:
        UserError: If the name is taken by something that is not the plugin's.
    """
    _register(host.registry("DETECTOR"), "DETECTOR", DetectorFactory())
    _register(host.registry("TRAINER"), "TRAINER", TrainerFactory(host))


def register_in(package: str, host: Host) -> None:
    """Does the same from inside the host's own ``detectors`` package, in the objects that it really uses.

    A fork may import its registries under several module names, each of which has objects of its own: only
    those that this package's detectors are in will ever be asked.

    Args:
        package: The package's name in ``sys.modules``, e.g. ``detectors``.
        host: The host it belongs to.

    Raises:
        UserError: As :func:`register_plugin`.
    """
    detectors = getattr(sys.modules[package], "DETECTOR", None)
    if detectors is None:  # its __init__ keeps no name for it
        register_plugin(host)
        return
    _register(detectors, "DETECTOR", DetectorFactory())
    for module in list(sys.modules.values()):
        trainers = getattr(module, "__dict__", {}).get("TRAINER")
        if getattr(module, "__dict__", {}).get("DETECTOR") is detectors and hasattr(
            trainers, "register_module"
        ):
            _register(trainers, "TRAINER", TrainerFactory(host))


def _register(registry: Any, registry_name: RegistryName, factory: Callable[..., Any]) -> None:
    present = registry.data.get(PLUGIN_NAME)
    if present is None:
        registry.register_module(module_name=PLUGIN_NAME)(factory)
    elif not isinstance(present, type(factory)):
        owner = present if hasattr(present, "__qualname__") else type(present)
        raise UserError(
            f"the name {PLUGIN_NAME!r} in the host's {registry_name} is taken",
            got=f"{owner.__module__}.{owner.__qualname__}",
            next_step="rename the other one",
        )
