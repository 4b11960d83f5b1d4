"""What two measurements of one dataset can differ in, and how each difference is put back.

A further factor is one more entry of :data:`FACTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.interpolation import OPENCV_FLAG

if TYPE_CHECKING:
    from effort_finetune.config import Settings

Document = Mapping[str, Any]
_OF_FLAG = {flag: name for name, flag in OPENCV_FLAG.items()}
#: Mean and deviation that detectors are trained with: CLIP's, ImageNet's, DeepfakeBench's own.
_NORMALISATIONS = (
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
)

_THRESHOLDS = tuple(number / 10 for number in range(1, 10))


@dataclass(frozen=True)
class Reading:
    """How frame scores become a dataset's numbers.

    Attributes:
        grouping: What is one video: ``index`` (dataset, label group and name), ``folder`` (whatever lies in
            folders of one name, as DeepfakeBench's ``get_test_metrics`` has it) or ``frame``.
        video_score: ``mean``, ``median`` or ``max`` of its frames' probabilities, or ``logit mean``.
        threshold: Decision threshold.
        rule: ``>`` or ``>=``.
    """

    grouping: str = "index"
    video_score: str = "mean"
    threshold: float = 0.5
    rule: str = ">"


@dataclass(frozen=True)
class Variant:
    """One way to measure a dataset.

    Attributes:
        settings: How frames are read and scored.
        weights: The checkpoint.
        reading: What is made of the scores.
    """

    settings: Settings
    weights: Path | None
    reading: Reading


@dataclass(frozen=True)
class Factor:
    """One thing in which measurements differ.

    Attributes:
        name: For tables.
        stated: Its value by a results document and the dataset's name; ``None`` where nothing is said.
        put: Returns the variant with another value of it; ``None`` for what no scoring again can put back.
        candidates: Values that are tried where the other result does not state its own.
    """

    name: str
    stated: Callable[[Document, str], Any]
    put: Callable[[Variant, Any], Variant] | None
    candidates: tuple[Any, ...] = ()


def _run(key: str) -> Callable[[Document, str], Any]:
    return lambda document, _: (document.get("protocol") or {}).get(key)


def _data(document: Document, dataset: str) -> Mapping[str, Any]:
    return ((document.get("datasets") or {}).get(dataset) or {}).get("protocol") or {}


def _frames(document: Document, dataset: str) -> Any:
    own = _data(document, dataset).get("frames_asked")
    return own if own is not None else _run("frames_asked")(document, dataset)


def _interpolation(document: Document, dataset: str) -> Any:
    said = _run("interpolation")(document, dataset)
    return _OF_FLAG.get(said, said)


def _normalisation(document: Document, dataset: str) -> Any:
    own = _data(document, dataset)
    if own.get("mean") is None or own.get("std") is None:
        return None
    return tuple(own["mean"]), tuple(own["std"])


def _per_part(key: str) -> Callable[[Document, str], Any]:
    def stated(document: Document, dataset: str) -> Any:
        parts = _data(document, dataset).get("datasets") or {}
        values = [part.get(key) for part in parts.values() if isinstance(part, Mapping)]
        return next((value for value in values if value is not None), None)

    return stated


def _grouping(document: Document, dataset: str) -> Any:
    said = _run("video_grouping")(document, dataset)
    if said is None and str(document.get("computed_by", "")).startswith("the host's"):
        return "folder"
    return "index" if said == "dataset, label group, compression and video name of the index" else said


def _video_score(document: Document, dataset: str) -> Any:
    said = _run("video_score")(document, dataset)
    return "mean" if said == "mean of the probabilities of its scored frames" else said


def _rule(document: Document, dataset: str) -> Any:
    said = _run("threshold_rule")(document, dataset)
    return None if not isinstance(said, str) else ">=" if ">=" in said else ">" if ">" in said else None


def _checkpoint(document: Document, _: str) -> Any:
    return (document.get("checkpoint") or {}).get("path")


def _setting(key: str) -> Callable[[Variant, Any], Variant]:
    return lambda variant, value: replace(variant, settings=variant.settings.changed(**{key: value}))


def _reading(key: str) -> Callable[[Variant, Any], Variant]:
    return lambda variant, value: replace(variant, reading=replace(variant.reading, **{key: value}))


def _put_frames(variant: Variant, value: Any) -> Variant:
    asked = variant.settings.frame_num.model_copy(update={"test": int(value)})
    return replace(variant, settings=variant.settings.changed(frame_num=asked))


def _put_normalisation(variant: Variant, value: Any) -> Variant:
    mean, std = value
    changed = variant.settings.changed(mean=mean, std=std, allow_preprocessing_mismatch=True)
    return replace(variant, settings=changed)


def _put_interpolation(variant: Variant, value: Any) -> Variant:
    changed = variant.settings.changed(interpolation=value, allow_preprocessing_mismatch=True)
    return replace(variant, settings=changed)


def _put_precision(variant: Variant, value: Any) -> Variant:
    names = {"bfloat16": "bf16", "float16": "fp16"}
    return replace(variant, settings=variant.settings.changed(precision=names.get(value, value)))


def _put_checkpoint(variant: Variant, value: Any) -> Variant:
    return replace(variant, weights=Path(value))


FACTORS = (
    Factor("checkpoint", _checkpoint, _put_checkpoint),
    Factor("frames a video", _frames, _put_frames, (1, 4, 8, 16, 32)),
    Factor("frame sampling", _run("frame_sampling"), _setting("frame_sampling"), ("uniform", "first")),
    Factor("interpolation", _interpolation, _put_interpolation, ("bicubic", "bilinear", "area", "nearest")),
    Factor("mean and std", _normalisation, _put_normalisation, _NORMALISATIONS),
    Factor("precision", _run("forward_precision"), _put_precision, ("float32", "bfloat16")),
    Factor("compression", _run("compression"), _setting("compression")),
    Factor("fit", _per_part("fit"), _setting("fit")),
    Factor("video grouping", _grouping, _reading("grouping"), ("index", "folder", "frame")),
    Factor("video score", _video_score, _reading("video_score"), ("mean", "logit mean", "median", "max")),
    Factor("threshold", _run("threshold"), _reading("threshold"), _THRESHOLDS),
    Factor("threshold rule", _rule, _reading("rule"), (">", ">=")),
    # What follows is listed where it differs; no scoring of the same files can put it back.
    Factor("split", _run("split"), None),
    Factor("loader", _run("loader"), None),
    Factor("crop recipe", _per_part("crop_recipe"), None),
    Factor("resolution", _run("resolution"), None),
    Factor("label map", _run("label_map"), None),
    Factor("checkpoint chosen on", _run("checkpoint_selected_on"), None),
    Factor("loss terms", _run("loss_terms"), None),
)
