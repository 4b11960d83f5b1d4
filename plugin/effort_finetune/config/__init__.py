"""Typed, frozen settings and the one resolver that builds them (flags > YAML > host > defaults)."""

from effort_finetune.config.resolve import load_yaml, resolve, settings_from_config
from effort_finetune.config.schema import (
    DataAug,
    EarlyStopping,
    FrameNum,
    Loss,
    Optimizer,
    Settings,
)

__all__ = [
    "DataAug",
    "EarlyStopping",
    "FrameNum",
    "Loss",
    "Optimizer",
    "Settings",
    "load_yaml",
    "resolve",
    "settings_from_config",
]
