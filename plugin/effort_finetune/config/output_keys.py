"""Settings of the evaluation and of where results go."""

from __future__ import annotations

from typing import ClassVar

from effort_finetune.config.kinds import CountOrZero, Share, Text, Texts, Truth
from effort_finetune.config.section import SCORE, TRAIN, Section, setting


class OutputKeys(Section):
    """The keys at the top level that say what comes out."""

    READ_BY: ClassVar[tuple[str, ...]] = SCORE

    threshold: Share = setting(0.5, "fake probability above which a frame or video is called fake")
    bootstrap_samples: CountOrZero = setting(
        1000, "resamples of videos for the 95 % intervals; 0 leaves them out"
    )
    robustness: Texts = setting(
        (),
        "corruptions that are measured beside the pictures as they are, at five levels each; or all",
        read_by=("evaluate",),
    )
    log_dir: Text = setting(
        "./training/logs", "folder of the run folders when no output_dir is given", path=True, read_by=TRAIN
    )
    output_dir: Text | None = setting(None, "folder of this run", path=True)
    save_to: Text | None = setting(
        "finetuned/effort_{train_dataset}.pth",
        "where the selected checkpoint is published; null does not",
        path=True,
        read_by=TRAIN,
    )
    save_ckpt: Truth = setting(
        True,
        "leave state and weights when the run is over; false: no .pth, also none at save_to",
        read_by=TRAIN,
    )
