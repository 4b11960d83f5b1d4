"""Detectors; importing this package fills DETECTOR."""

from metrics.registry import DETECTOR

from .base_detector import AbstractDetector
from .meso4_detector import Meso4Detector

__all__ = ["DETECTOR", "AbstractDetector", "Meso4Detector"]
# >>> effort-finetune
from . import effort_finetune_detector
# <<< effort-finetune
