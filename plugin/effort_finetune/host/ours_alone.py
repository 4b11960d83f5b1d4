"""Settings that shape our detector alone: given for a host's, they would be recorded without being done."""

from __future__ import annotations

from effort_finetune.config import Settings
from effort_finetune.config.resolve import OUR_NAMES
from effort_finetune.core.errors import UserError

OURS_ALONE = (
    "residual_rank",
    "targets",
    "layer_range",
    "head_width",
    "hidden_act",
    "allow_base_mismatch",
    "train_svd_residuals",
    "train_classification_head",
    "freeze_backbone",
    "unfreeze",
    "tune_mode",
    "lora",
    "loss",
)


def refuse_ours_alone(settings: Settings, name: str) -> None:
    """Refuses what a host's detector would not obey.

    Raises:
        UserError: Such a setting has another value than it has by itself.
    """
    defaults = Settings()
    for key in OURS_ALONE:
        if getattr(settings, key) != getattr(defaults, key):
            raise UserError(
                key,
                got=f"a value for {name!r}, which has no such thing",
                expected="only settings that the detector obeys",
                next_step=f"leave {key} out, or use model_name: {OUR_NAMES[0]}",
            )
