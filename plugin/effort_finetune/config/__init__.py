"""Typed, frozen settings and the one resolver that builds them (flags > YAML > host > defaults)."""

from effort_finetune.config.data_keys import DataAug, FrameNum
from effort_finetune.config.model_keys import Loss
from effort_finetune.config.recipe_keys import EarlyStopping, Optimizer
from effort_finetune.config.resolve import load_yaml, resolve, settings_from_config
from effort_finetune.config.schema import Settings

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
