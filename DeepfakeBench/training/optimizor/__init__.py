"""Optimisers and learning-rate schedules by name (the package's spelling is the bench's)."""

from .choose import choose_optimizer, choose_scheduler

__all__ = ["choose_optimizer", "choose_scheduler"]
