"""Backbones; importing this package fills BACKBONE."""

from metrics.registry import BACKBONE

from .mesonet import Meso4

__all__ = ["BACKBONE", "Meso4"]
