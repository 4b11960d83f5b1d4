"""A stored calibration applied to a dataset: raw and calibrated side by side, and what taints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effort_finetune.core.metrics import TABLE, binary_metrics
from effort_finetune.core.weighted import FloatArray, IntArray
from effort_finetune.evaluate.calibration import FEW_VIDEOS, called, quality, reliability
from effort_finetune.weights.stored_calibration import StoredCalibration

#: What makes the videos of a calibration those of a test: entries of a dataset's protocol.
KIND = (
    "frames_asked",
    "sampling",
    "source",
    "compression",
    "interpolation",
    "resolution",
    "mean",
    "std",
    "crop",
)


def calibrated_block(calibration: StoredCalibration, label: IntArray, prob: FloatArray) -> dict[str, Any]:
    """Measures the videos of a dataset by the calibration that the weights carry; nothing is fitted.

    Args:
        calibration: Temperature, bias, thresholds and band, fitted elsewhere.
        label: ``[V]``, 0 real, 1 fake.
        prob: ``[V]``, raw probability of fake.
    """
    calibrated = calibration.apply(prob)
    block: dict[str, Any] = {
        "sha256": calibration.sha256,
        "temperature": calibration.temperature,
        "bias": calibration.bias,
        "raw": quality(label, prob),
        "calibrated": quality(label, calibrated),
        "reliability": {"raw": reliability(label, prob), "calibrated": reliability(label, calibrated)},
        "at": {},
        "unsure": None,
    }
    for name, threshold in calibration.thresholds.items():
        if threshold is None:
            continue
        found = binary_metrics(label, calibrated, threshold=threshold)
        kept = [metric for metric, entry in TABLE.items() if entry.at_threshold]
        block["at"][name] = {
            "threshold": threshold,
            **{metric: found[metric] for metric in kept},
            **called(label, calibrated, threshold),
            "confusion": found["confusion"],
        }
    if calibration.unsure is not None and len(label):
        low, high = calibration.unsure
        block["unsure"] = {
            "low": low,
            "high": high,
            "error": calibration.error,
            "share": float(((calibrated >= low) & (calibrated <= high)).mean()),
            "real_called_fake": _share(calibrated[label == 0] > high),
            "fake_called_real": _share(calibrated[label == 1] < low),
        }
    return block


def kind_of(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the videos of a dataset are like, for the record of a calibration.

    Args:
        protocol: The dataset's own protocol block.
    """
    return {key: protocol[key] for key in KIND if protocol.get(key) is not None}


def calibration_warnings(
    calibration: StoredCalibration, name: str, kind: Mapping[str, Any], frames_sha256: str | None
) -> list[str]:
    """Returns a sentence for each reason why a calibration may not hold on a dataset.

    Args:
        calibration: What the weights carry.
        name: The dataset that is measured.
        kind: Of :func:`kind_of`, of this dataset.
        frames_sha256: Which frames were scored.
    """
    sentences = []
    about = calibration.fitted_on
    sizes = [size for key in ("real", "fake") if isinstance(size := about.get(key), int)]
    if len(sizes) == 2 and min(sizes) < FEW_VIDEOS:
        sentences.append(
            f"the calibration was fitted on {sizes[0]} real and {sizes[1]} fake videos: with fewer than "
            f"{FEW_VIDEOS} of a class it is a guess"
        )
    known = about.get("datasets")
    datasets = known if isinstance(known, Mapping) else {}
    blocks = {key: value for key, value in datasets.items() if isinstance(value, Mapping)}
    for own, block in blocks.items():
        if frames_sha256 is not None and block.get("frames_sha256") == frames_sha256:
            sentences.append(
                f"the calibration was fitted on these very frames ({own}): thresholds and calibrated numbers "
                "of this dataset say nothing about others"
            )
    if blocks and name not in blocks:
        sentences.append(f"the calibration is of {', '.join(blocks)}, not of {name}: it may not hold here")
    differing = sorted(
        {
            key
            for block in blocks.values()
            if isinstance(of := block.get("kind"), Mapping)
            for key in of.keys() & kind.keys()
            if of[key] != kind[key]
        }
    )
    if differing:
        sentences.append(
            f"the calibration is of videos of another kind: {', '.join(differing)} differ"
            f"{'s' if len(differing) == 1 else ''} on {name}"
        )
    return sentences


def _share(wrong: Any) -> float | None:
    return float(wrong.mean()) if len(wrong) else None
