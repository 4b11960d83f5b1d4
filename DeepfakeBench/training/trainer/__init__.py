"""Training; the trainer is in :mod:`trainer.trainer`."""

from metrics.registry import TRAINER

__all__ = ["TRAINER"]
