"""How the numbers came about, in the words a paper's evaluation section needs, and what taints them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from effort_finetune.core.crop_recipe import CropRecipe, recipe_warning
from effort_finetune.core.interpolation import OPENCV_FLAG
from effort_finetune.core.metrics import ECE_BINS
from effort_finetune.core.verdict_rule import ABOVE
from effort_finetune.data.listed_rows import HOSTS_OWN
from effort_finetune.evaluate.intervals import LEVEL, room_for_errors

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.frames import FrameDataset


def protocol(
    settings: Settings, *, split: str, autocast: torch.dtype | None, bootstrap_samples: int, trained: bool
) -> dict[str, Any]:
    """Returns the rules that hold for all datasets of a run.

    Args:
        settings: The run's settings.
        split: The split that was scored.
        autocast: Precision of the forward pass.
        bootstrap_samples: Resamples of the confidence intervals.
        trained: Whether this run trained the checkpoint; of a file that is only measured nobody here
            knows what chose it and with which loss, so both are ``None``.
    """
    return {
        "split": split,
        "frames_asked": settings.frame_num.test if split == "test" else settings.frame_num.train,
        "loader": settings.loader,
        "frame_sampling": HOSTS_OWN if settings.loader == "host" else settings.frame_sampling,
        "compression": settings.compression,
        "resolution": settings.resolution,
        "interpolation": HOSTS_OWN if settings.loader == "host" else OPENCV_FLAG[settings.interpolation],
        "crops": "as the host's index lists them; those of a folder become squares by its `fit`; no face is "
        "looked for",
        "label_map": dict(settings.label_dict),
        "probability": "softmax of the two logits, float64 from float32 logits",
        "forward_precision": "float32" if autocast is None else str(autocast).removeprefix("torch."),
        "video_grouping": "dataset, label group, compression and video name of the index",
        **rules_of_metrics(
            settings.threshold, ABOVE, bootstrap_samples=bootstrap_samples, seed=settings.manualSeed
        ),
        "max_missing_rate": settings.max_missing_rate,
        "checkpoint_selected_on": settings.select_on if trained else None,
        "loss_terms": settings.to_dict()["loss"] if trained else None,
    }


def imported_protocol(
    *,
    threshold: float,
    rule: str,
    bootstrap_samples: int,
    seed: int,
    max_missing_rate: float,
    split: str,
    source: str,
) -> dict[str, Any]:
    """Returns the rules of scores that somebody else computed: what nobody here knows is ``None``.

    Args:
        threshold: Of the verdicts.
        rule: ``>`` or ``>=``.
        bootstrap_samples: Resamples of the confidence intervals.
        seed: Of the resamples.
        max_missing_rate: Largest share of rows without a score.
        split: What the rows are, ``test`` or ``val``.
        source: Where the scores come from and how rows became videos.
    """
    unknown = (
        *("frames_asked", "loader", "frame_sampling", "compression", "resolution", "interpolation"),
        *("crops", "label_map", "forward_precision", "checkpoint_selected_on", "loss_terms"),
    )
    return {
        "split": split,
        **dict.fromkeys(unknown),
        "probability": source,
        "video_grouping": None,
        **rules_of_metrics(threshold, rule, bootstrap_samples=bootstrap_samples, seed=seed),
        "max_missing_rate": max_missing_rate,
    }


def rules_of_metrics(threshold: float, rule: str, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Returns the rules by which scores become numbers, whoever computed them.

    Args:
        threshold: Of the verdicts.
        rule: ``>`` or ``>=``: whether a score at the threshold is a fake.
        bootstrap_samples: Resamples of the confidence intervals.
        seed: Of the resamples.
    """
    return {
        "video_score": "mean of the probabilities of its scored frames",
        "threshold": threshold,
        "verdict_rule": rule,
        "threshold_rule": f"fake if probability {rule} threshold; fixed before scoring, not fitted",
        "eer": "FPR = 1 - TPR on the piecewise linear ROC",
        "tpr_at_fpr": "linear between ROC points; null with fewer than 1/FPR real samples",
        "ece": f"{ECE_BINS} equal-width bins of P(fake), weighted by their size",
        "confidence_intervals": {
            "level": LEVEL,
            "method": "AUC: placement values (DeLong), AP and AURC: jackknife less its bias, pAUC and Brier: "
            "jackknife, on the logit scale; NLL: jackknife on the log scale; shares of verdicts and EER: "
            "exact at the effective sample size; TPR at an FPR: BCa bootstrap",
            "unit": "video",
            "stratified_by": "label",
            "no_width": "null, e.g. of a perfect AUC: what no resample changes bounds nothing",
            "samples": bootstrap_samples,
            "seed": seed,
        },
        "missing_frames": "left out, counted and listed; never replaced",
    }


def leakage_warnings(dataset: FrameDataset, split: str) -> list[str]:
    """Returns a sentence for every other split that shares videos, or frames under another name.

    Upstream's scripts write UADFV with all videos in all splits and Celeb-DF with val equal to test;
    a number on either must say so.

    Args:
        dataset: The opened split of one or more datasets; its protocol names the overlap.
        split: The split that is scored.
    """
    effect = {"train": "the numbers hold training data", "val": "selection on val has seen these videos"}
    sentences = []
    for own, part in dataset.protocol["datasets"].items():
        for other, shared in part["also_in"].items():
            what = (
                f"{shared['videos']} of {part['videos']} {split} videos"
                if shared["videos"]
                else f"{shared['frames']} {split} frames, in videos of other names,"
            )
            consequence = effect.get(other, "the splits are not disjoint")
            sentences.append(f"{what} of {own} are in its {other} split too: {consequence}")
        sentences += [f"{own}: {warning}" for warning in part.get("warnings", ())]
    return sentences


def recipe_warnings(name: str, dataset: FrameDataset, trained: Sequence[CropRecipe]) -> list[str]:
    """Returns a sentence if the pictures were cut otherwise than those that were trained on.

    Args:
        name: Data set.
        dataset: Its opened split.
        trained: Recipes of the training data; empty where the weights do not state them.
    """
    sentences = (recipe_warning(trained, recipe, name) for recipe in dataset.recipes())
    return [sentence for sentence in sentences if sentence]


def data_lines(dataset: FrameDataset) -> list[str]:
    """Returns a line for each folder of a split: what is read of it, who is in it, what is not taken."""
    lines = []
    for name, part in dataset.protocol["datasets"].items():
        if (folder := part.get("folder")) is None:
            continue
        left = [f"{count} {reason}" for reason, count in folder["not_taken"].items()]
        facts = [f"{folder['taken']}, {part['videos']} samples, {part['frames_used']} pictures"]
        facts += [folder["person_rules"]] if folder["person_rules"] else []
        facts += [f"not taken: {', '.join(left)}"] if left else []
        lines.append(f"{name}: {'; '.join([*facts, *folder['notes']])}")
    return lines


def class_warnings(name: str, video_label: NDArray[np.int64]) -> list[str]:
    """Returns a sentence if all scored videos are of one class.

    Args:
        name: Data set.
        video_label: ``[V]``, 0 real, 1 fake.
    """
    if len(np.unique(video_label)) != 1:
        return []
    word = "fake" if video_label[0] else "real"
    return [f"all scored videos of {name} are {word}: precision and F1 say nothing about a detector"]


def auc_warnings(name: str, block: Mapping[str, Any]) -> list[str]:
    """Returns a sentence if the scores order the classes worse than chance, or without an error by being few.

    Args:
        name: Data set.
        block: Its block of the results file, metrics included.
    """
    auc = block["video"]["auc"]
    reals, fakes = (block["counts"][f"videos_{word}"] for word in ("real", "fake"))
    if auc is not None and auc > 1 - 1e-12 and (room := room_for_errors(reals, fakes)) is not None:
        return [f"video AUC of {name} is 1 on {reals} real and {fakes} fake videos, and {room}"]
    if auc is None or auc >= 0.5:
        return []
    interval = block["video"]["ci95"]["intervals"]["auc"]
    # An AUC of 0 has no interval, but by chance one order of all those of reals and fakes gives it.
    sure = interval[1] < 0.5 if interval else auc == 0.0 and math.comb(reals + fakes, reals) > 40
    cause = "labels, label_dict or preprocessing are likely wrong" if sure else "it may be chance"
    return [f"video AUC of {name} is {auc:.4f}, below .5: fakes score lower than reals; {cause}"]
