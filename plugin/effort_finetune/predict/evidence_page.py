"""The evidence of a file as one HTML page that needs nothing beside it and prints well."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from effort_finetune.core.escaping import visible
from effort_finetune.data.deliveries import DELIVERIES
from effort_finetune.predict.evidence_plots import calibration_svg, timeline_svg
from effort_finetune.predict.file_crops import Cut, FileCrops
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.heat_files import cuts_of, overlay, peak_of

MOST_FACES, MOST_CROPS = 4, 8


def page_of(
    found: FileCrops,
    record: FileRecord,
    data: Mapping[str, Any],
    heat: Sequence[tuple[int, Cut, np.ndarray]],
    *,
    threshold: float | None,
) -> str:
    """Returns the page.

    Args:
        found: The file's crops.
        record: What is said of it.
        data: Of :func:`~effort_finetune.predict.evidence_data.evidence_of`.
        heat: Number of the face, crop and map of each that is shown.
        threshold: Of the raw probability, for the timeline.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files(__package__).joinpath("evidence_template.html").read_text(encoding="utf-8")
    css = files("effort_finetune.evaluate").joinpath("report.css").read_text(encoding="utf-8")
    calibration = data["calibration"] or {}
    curve = calibration_svg(calibration.get("reliability") or {}, record.calibrated)
    timeline = timeline_svg(record.faces, threshold)
    return environment.from_string(source).render(
        name=visible(record.file.replace("\\", "/").rsplit("/", 1)[-1]),
        css=Markup(css),
        data=data,
        record=data["record"],
        errors=_errors(calibration, record),
        fitted=_fitted(calibration),
        crops=_crops(found, record),
        heat=[_heat(*one) for one in heat],
        timeline=Markup(timeline) if timeline else None,
        calibration=Markup(curve) if curve else None,
        deliveries=_deliveries(record),
        file=_file(record, data),
        blocks=[(title, _rows(data[title])) for title in ("model", "recipe", "code", "libraries", "device")],
    )


def _crops(found: FileCrops, record: FileRecord) -> list[dict[str, Any]]:
    faces = []
    for number, face in enumerate(record.faces[:MOST_FACES], start=1):
        cuts = cuts_of(found, face)
        chosen = np.unique(np.linspace(0, len(cuts) - 1, min(MOST_CROPS, len(cuts))).round().astype(int))
        crops = [
            {"uri": _uri(cuts[i].image), "frame": cuts[i].frame, "prob": face.frames[i].prob} for i in chosen
        ]
        faces.append(
            {"number": number, "verdict": face.verdict, "prob": face.prob, "frames": len(cuts),
             "shown": len(crops), "crops": crops, "distance": face.distance}
        )  # fmt: skip
    return faces


def _heat(face: int, cut: Cut, heat: np.ndarray) -> dict[str, Any]:
    return {
        "face": face + 1,
        "frame": cut.frame,
        "crop": _uri(cut.image),
        "map": _uri(overlay(cut.image, heat)),
        "peak": peak_of(heat),
    }


def _uri(image: np.ndarray) -> str:
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert done, "OpenCV encodes every picture of three channels"
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"


def _errors(calibration: Mapping[str, Any], record: FileRecord) -> list[str]:
    """What the threshold of the verdict got wrong on the videos it was chosen on."""
    found = (calibration.get("val_errors") or {}).get("balanced")
    if record.score is None:
        return []
    if not isinstance(found, Mapping) or record.threshold != (calibration.get("thresholds") or {}).get(
        "balanced"
    ):
        return ["How often this threshold errs is not known."]
    words = []
    for key, name in (("fpr", "real called fake"), ("fnr", "fake called real")):
        rate, bounds = found.get(key), found.get(f"{key}_interval")
        if isinstance(rate, (int, float)):
            low, high = bounds if isinstance(bounds, (list, tuple)) and len(bounds) == 2 else (0, 1)
            words.append(f"{name} {rate:.1%} (95 % interval {low:.1%} to {high:.1%})")
    return [f"On the validation videos it was chosen on: {'; '.join(words)}."]


def _fitted(calibration: Mapping[str, Any]) -> list[str]:
    about = calibration.get("fitted_on") or {}
    if not calibration:
        return []
    names = ", ".join(map(str, about.get("datasets") or {})) or "datasets not stated"
    lines = [
        f"Fitted on {about.get('real', '?')} real and {about.get('fake', '?')} fake videos ({names}): "
        f"temperature {calibration['temperature']:.4g}, bias {calibration['bias']:+.4g}."
    ]
    if calibration.get("unsure"):
        low, high = calibration["unsure"]
        lines.append(f"Between {low:.3f} and {high:.3f} a verdict is unsure.")
    return lines + [f"Mind: {line}." for line in calibration.get("warnings") or ()]


def _deliveries(record: FileRecord) -> list[tuple[str, float | None]]:
    if record.stability is None:
        return []
    return [(DELIVERIES[name].title, prob) for name, prob in record.stability.deliveries.items()]


def _file(record: FileRecord, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("path", visible(record.file, limit=None)),
        ("SHA-256", record.sha256),
        ("bytes", data["bytes"]),
        ("kind", record.kind),
        ("status", record.status),
        ("frames looked at", record.frames_read),
        ("without a face", record.frames_without_face),
        ("undecodable", record.frames_undecodable),
    ]
    return [(key, "not known" if value is None else str(value)) for key, value in rows]


def _rows(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _words(value)) for key, value in block.items()]


def _words(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none stated"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return visible(value, limit=None)
