"""From the scores of a file's crops to its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effort_finetune.predict.file_crops import AS_IS, Cut, FileCrops
from effort_finetune.predict.file_records import AnyFace, FaceRecord, FileRecord, FrameScore, Stability
from effort_finetune.predict.tracks import follow
from effort_finetune.predict.verdicts import STEADY, Rule


def record_of(
    found: FileCrops,
    probs: Mapping[str, Sequence[float]],
    rule: Rule,
    *,
    features: np.ndarray | None = None,
    label: Any = None,
) -> FileRecord:
    """Makes the record of a file.

    Args:
        found: Its crops.
        probs: Probability of fake of ``found.cuts`` (under ``""``) and of each delivery's crops.
        rule: How probabilities become verdicts.
        features: ``[N, d]``, of ``found.cuts``; None where nobody asks how far they lie.
        label: What its folders say.
    """
    common: dict[str, Any] = {
        "file": found.file,
        "sha256": found.sha256,
        "threshold": rule.threshold,
        "threshold_source": rule.source,
        "kind": found.kind,
        "frames_read": found.frames,
        "frames_without_face": found.without_face,
        "frames_undecodable": found.undecodable,
        "label": label,
    }
    if not found.cuts:
        unreadable = found.error is not None
        reason = f"unreadable: {found.error}" if unreadable else "no face was found"
        return FileRecord(
            status="unreadable" if unreadable else "no_face",
            verdict="unsure",
            reasons=(reason,),
            score=None,
            calibrated=None,
            **common,
        )
    faces = tuple(_faces(found, probs[AS_IS], rule, features))
    largest = faces[0]
    verdict, reasons = largest.verdict, list(largest.reasons)
    stability = _stability(found, probs, rule) if found.delivered_frames else None
    if stability is not None and stability.same is not None and stability.same < STEADY:
        verdict = "unsure"
        reasons.append(f"flips: {stability.same:.0%} of the deliveries have the same verdict")
    return FileRecord(
        status="scored",
        verdict=verdict,
        reasons=tuple(reasons),
        score=largest.prob,
        calibrated=largest.calibrated,
        faces=faces,
        any_face=_any_face(faces, rule),
        stability=stability,
        **common,
    )


def _faces(
    found: FileCrops, probs: Sequence[float], rule: Rule, features: np.ndarray | None
) -> list[FaceRecord]:
    video = found.kind == "video"
    records = []
    for group in _groups(found.cuts, video=video):
        prob = float(np.mean([probs[i] for i in group]))
        distance = None if features is None else rule.farness(features[group], video=video)
        verdict, reasons = rule.verdict(prob, frames=len(group), video=video, distance=distance)
        frames = tuple(_frame(found.cuts[i], probs[i]) for i in group)
        records.append(FaceRecord(prob, rule.calibrated(prob), verdict, reasons, frames, distance))
    return records


def _groups(cuts: Sequence[Cut], *, video: bool) -> list[list[int]]:
    """Positions of the crops of each face, the largest first; pages of a picture have nothing in common."""
    items = [(cut.frame, cut.face, i) for i, cut in enumerate(cuts) if cut.face is not None]
    if not video:
        return [[i] for _, _, i in sorted(items, key=lambda item: -item[1].area)] or [
            [i] for i in range(len(cuts))
        ]
    return [[i for _, _, i in track.items] for track in follow(items)] or [list(range(len(cuts)))]


def _frame(cut: Cut, prob: float) -> FrameScore:
    if cut.face is None:
        return FrameScore(cut.frame, None, float(prob))
    left, top, right, bottom = (float(edge) for edge in cut.face.box)
    return FrameScore(cut.frame, (left, top, right, bottom), float(prob))


def _any_face(faces: Sequence[FaceRecord], rule: Rule) -> AnyFace | None:
    if len(faces) < 2:
        return None
    prob = max(face.prob for face in faces)
    if rule.any_threshold is None:
        return AnyFace(prob, "fake" if rule.says_fake(prob) else "real", len(faces), None)
    threshold, rate = rule.any_threshold
    fake = rule.decided(prob) > threshold
    return AnyFace(prob, "fake" if fake else "real", len(faces), 1 - (1 - rate) ** len(faces))


def _stability(found: FileCrops, probs: Mapping[str, Sequence[float]], rule: Rule) -> Stability:
    """Compares each delivery with the same frames as they are, the largest face of each."""
    as_is: dict[int, float] = {}
    for cut, prob in zip(found.cuts, probs[AS_IS], strict=True):
        as_is.setdefault(cut.frame, float(prob))
    means: dict[str, float | None] = {}
    same = []
    for name, cuts in found.delivered.items():
        if not cuts:
            means[name] = None
            same.append(False)
            continue
        means[name] = float(np.mean(probs[name]))
        before = float(np.mean([as_is[cut.frame] for cut in cuts]))
        same.append(rule.says_fake(means[name] or 0.0) == rule.says_fake(before))
    share = sum(same) / len(same) if same else None
    return Stability(share, means, len(found.delivered_frames))
