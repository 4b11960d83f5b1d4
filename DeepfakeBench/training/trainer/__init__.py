"""Training; importing this package fills TRAINER."""

from metrics.registry import TRAINER

from .trainer import Trainer

__all__ = ["TRAINER", "Trainer"]
