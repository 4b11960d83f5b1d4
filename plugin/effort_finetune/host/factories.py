"""What a host's registries hold under the plugin's name: callables that import what they make when called.

``import detectors`` fills the registries in every run of a host. A run of another detector should neither
wait for transformers nor break where an old one is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effort_finetune.host.host import Host
    from effort_finetune.model.detector import EffortFinetuneDetector
    from effort_finetune.train.trainer import EffortFinetuneTrainer


class DetectorFactory:
    """Stands in ``DETECTOR`` for :class:`~effort_finetune.model.detector.EffortFinetuneDetector`."""

    def __call__(self, *args: Any, **kwargs: Any) -> EffortFinetuneDetector:
        """Makes a detector; the arguments are the class's."""
        from effort_finetune.model.detector import EffortFinetuneDetector

        return EffortFinetuneDetector(*args, **kwargs)


class TrainerFactory:
    """Stands in ``TRAINER`` for :class:`~effort_finetune.train.trainer.EffortFinetuneTrainer`.

    Args:
        host: The host whose own metrics the trainer adds to ours.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def __call__(self, *args: Any, **kwargs: Any) -> EffortFinetuneTrainer:
        """Makes a trainer; the arguments are the class's."""
        from effort_finetune.train.trainer import EffortFinetuneTrainer

        trainer = EffortFinetuneTrainer(*args, **kwargs)
        trainer.host = self._host
        return trainer
