"""What stands in the evidence of a file, as plain values: the JSON that its page is made from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.precision import resolve_precision
from effort_finetune.evaluate.provenance import code_version, device_info, library_versions
from effort_finetune.model.pointing_figures import tower_key
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.prediction import Predictor
from effort_finetune.weights.trained_on import told_by

SCHEMA = "1.0"
NO_PROOF = (
    "A detector is no proof. It compares a file with what it was trained on: forgeries of another kind can "
    "pass as real, and a real file that was edited, compressed or filmed off a screen can be called fake. "
    "Decide nothing on this page alone."
)
LICENCES = (
    "effort-finetune is under Apache-2.0.",
    "DeepfakeBench and the released Effort weights are under CC BY-NC 4.0: weights fine-tuned from them may "
    "not be used for commercial purposes.",
    "The file that was judged belongs to its owner; crops of it stand in this page.",
)
#: Probabilities that differ by less are the same, on another machine or other versions.
CLOSE = 1e-4


def run_block(predictor: Predictor) -> dict[str, Any]:
    """Returns what is the same for every file of a run: model, recipe, code, versions, device."""
    model, settings = predictor.checkpoint, predictor.settings
    report = model.load_report
    assert report is not None, "a predictor's weights come from a file"
    device = next(model.parameters()).device
    stated = report.statement
    calibration = None if stated.calibration is None else dict(stated.calibration)
    if calibration is not None:
        calibration.pop("features", None)  # 50 kB that nobody reads; the hash covers them
    return {
        "model": {
            "weights": Path(report.path).name,
            "sha256": report.sha256,
            "layout": report.layout,
            "tower": tower_key(model),
            "activation": report.hidden_act,
            "residual_rank": report.rank,
            "notes": list(report.notes),
            "trained_on": [_of(entry, "name", "listing_sha256") for entry in told_by(report.path).trained_on],
        },
        "recipe": {
            "faces": predictor.faces.line(),
            "frames_of_a_video": settings.frame_num.test,
            "resolution": settings.resolution,
            "mean": list(settings.mean),
            "std": list(settings.std),
            "seed": settings.manualSeed,
        },
        "calibration": calibration,
        "code": code_version(),
        "libraries": library_versions(),
        "device": device_info(device, resolve_precision(settings.precision, device).dtype),
    }


def evidence_of(record: FileRecord, run: Mapping[str, Any], heat: str, *, made: str) -> dict[str, Any]:
    """Returns the document of one file.

    Args:
        record: What is said of it.
        run: Of :func:`run_block`.
        heat: What is to be known of the heat maps.
        made: When, the one thing that differs when it is made again.
    """
    size = None
    with suppress(OSError, ValueError):
        size = Path(record.file).stat().st_size
    return {
        "schema_version": SCHEMA,
        "made": made,
        "no_proof": NO_PROOF,
        "bytes": size,
        "record": record.to_dict(),
        "heat_map": heat,
        **run,
        "licences": list(LICENCES),
    }


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what an evidence made again says otherwise than the one before; empty where nothing does.

    Args:
        earlier: The document that was there.
        now: The new one.

    Raises:
        UserError: If the earlier one is no evidence.
    """
    try:
        before, after = earlier["record"], now["record"]
        lines = [
            f"{key}: {before[key]!r} before, {after[key]!r} now"
            for key in ("sha256", "verdict", "status")
            if before[key] != after[key]
        ]
        for key in ("score", "calibrated"):
            one, other = before[key], after[key]
            if (one is None) != (other is None) or (one is not None and abs(one - other) > CLOSE):
                lines.append(f"{key}: {one} before, {other} now")
        for part in ("code", "libraries", "device"):
            lines += [
                f"{part}.{key}: {earlier[part].get(key)} before, {value} now"
                for key, value in now[part].items()
                if earlier[part].get(key) != value
            ]
        if earlier["model"]["sha256"] != now["model"]["sha256"]:
            lines.append(f"weights: {earlier['model']['sha256']} before, {now['model']['sha256']} now")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError("earlier evidence", got=f"no evidence: {error}", expected="its JSON") from error
    return lines


def _of(entry: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: entry[key] for key in keys if key in entry}
