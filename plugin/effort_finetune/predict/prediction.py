"""A file to a verdict: read, cut, scored in batches over files, decided; memory stays flat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effort_finetune.config import Settings
from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import UserError
from effort_finetune.core.precision import resolve_precision
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.normalisation import normalisation_table, normalise
from effort_finetune.evaluate.predictions import log_odds, probability
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.onnx_detector import SUFFIX as ONNX
from effort_finetune.model.onnx_detector import OnnxDetector
from effort_finetune.model.preprocessing import obey
from effort_finetune.predict.chosen_faces import ChosenFaces, choose_faces
from effort_finetune.predict.cutting_process import CuttingProcess
from effort_finetune.predict.cutting_worker import Shown
from effort_finetune.predict.file_crops import AS_IS, Cutter, FileCrops, all_deliveries
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.file_verdict import record_of
from effort_finetune.predict.inputs import label_of
from effort_finetune.predict.verdicts import Rule, rule_of
from effort_finetune.weights.first_look import look_at
from effort_finetune.weights.loading import NEW_HEAD
from effort_finetune.weights.reader import read_checkpoint, read_statement
from effort_finetune.weights.trained_on import told_by

WAITING = 64  # files that wait for a batch to be full


@dataclass(frozen=True)
class Predictor:
    """Weights that are ready to judge files.

    Attributes:
        model: The detector on its device.
        settings: Its preprocessing, batch size and frames of a video.
        faces: How pictures are cut.
        rule: How probabilities become verdicts.
        reader: The process that reads and cuts files.
    """

    model: EffortFinetuneDetector | OnnxDetector
    settings: Settings
    faces: ChosenFaces
    rule: Rule
    reader: CuttingProcess = field(default_factory=CuttingProcess, compare=False)

    @property
    def checkpoint(self) -> EffortFinetuneDetector:
        """The detector, for what needs more of it than its scores.

        Raises:
            UserError: If the weights are an ONNX file.
        """
        if isinstance(self.model, EffortFinetuneDetector):
            return self.model
        raise UserError(
            "heat maps and evidence", got="an ONNX file", expected="the checkpoint it was exported from"
        )

    def lines(self) -> list[str]:
        """What a user should know of this run."""
        told = [self.faces.line(), f"threshold {self.rule.threshold:g}: {self.rule.source}"]
        return told if isinstance(self.model, EffortFinetuneDetector) else [self.model.line(), *told]

    def records(
        self, files: Iterable[str], *, stability: bool = False, labels: ClassWords | None = None
    ) -> Iterator[FileRecord]:
        """Yields one record a file, in order, whatever the file holds.

        Args:
            files: Paths.
            stability: Score each file again under the deliveries.
            labels: How folder names tell classes; None does not ask them.
        """
        for _, record in self.judged(files, stability=stability, labels=labels):
            yield record

    def judged(
        self,
        files: Iterable[str],
        *,
        stability: bool = False,
        labels: ClassWords | None = None,
        shown: Shown | None = None,
        watch: Callable[[str, Any], None] | None = None,
    ) -> Iterator[tuple[FileCrops, FileRecord]]:
        """Yields the crops of each file with its record, for those who show what was judged.

        Args:
            files: Paths, asked for as the model can take them.
            stability: See :meth:`records`.
            labels: See :meth:`records`.
            shown: Made of each frame that is looked at, in the process that reads it; a function of a module
                that imports no torch, of number and ``uint8[H, W, 3]`` (RGB).
            watch: Called with the file and what ``shown`` made.
        """
        cutter = self.cutter(all_deliveries() if stability else ())
        batch = self.settings.test_batchSize
        with ExitStack() as stack:
            stack.enter_context(self.model.merged())
            waiting: list[FileCrops] = []
            for found in self.reader.cut(cutter, files, shown=shown, watch=watch):
                waiting.append(found)
                if sum(map(_crops, waiting)) >= batch or len(waiting) >= WAITING:
                    yield from self._judged(waiting, labels)
                    waiting = []
            yield from self._judged(waiting, labels)

    def cutter(self, deliveries: tuple[str, ...] = ()) -> Cutter:
        """Returns how files are cut for these weights; see :class:`Cutter`."""
        settings = self.settings
        return Cutter(
            self.faces, settings.resolution, settings.frame_num.test, settings.interpolation, deliveries,
            settings.manualSeed,
        )  # fmt: skip

    def _judged(
        self, waiting: Sequence[FileCrops], labels: ClassWords | None
    ) -> Iterator[tuple[FileCrops, FileRecord]]:
        images = [
            cut.image for found in waiting for cuts in (found.cuts, *found.delivered.values()) for cut in cuts
        ]
        scored, features = self.scored(images)
        probs, at = iter(scored.tolist()), 0
        for found in waiting:
            by_delivery = {AS_IS: [next(probs) for _ in found.cuts]}
            own = features[at : at + len(found.cuts)]
            at += _crops(found)
            for name, cuts in found.delivered.items():
                by_delivery[name] = [next(probs) for _ in cuts]
            label = None if labels is None else label_of(found.file, labels)
            yield found, record_of(found, by_delivery, self.rule, features=own, label=label)

    def scored(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``uint8[side, side, 3]`` crops (RGB).

        Returns:
            The probability of fake, ``float64[N]``, and the features, ``float32[N, d]``.
        """
        precision = resolve_precision(self.settings.precision, next(self.model.parameters()).device)
        size, odds, features = self.settings.test_batchSize, [], []
        for start in range(0, len(images), size):
            part = self.inputs(images[start : start + size])
            # Entered for each batch: a generator must not leave its caller in inference mode.
            with torch.inference_mode(), precision.autocast() if precision.dtype else nullcontext():
                answer = self.model({"image": part}, inference=True)
                odds.append(log_odds(answer, len(part)))
                features.append(answer["feat"].float().cpu().numpy())
        if not odds:
            return np.empty(0), np.empty((0, 0), dtype=np.float32)
        return probability(np.concatenate(odds)), np.concatenate(features)

    def inputs(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Returns what the model is given of crops, ``float32[N, 3, side, side]`` on its device."""
        table = normalisation_table(self.settings.mean, self.settings.std)
        part = torch.stack([normalise(image, table) for image in images])
        return part.to(next(self.model.parameters()).device)


def _crops(found: FileCrops) -> int:
    return len(found.cuts) + sum(map(len, found.delivered.values()))


def load_predictor(
    weights: Path | str,
    settings: Settings | None = None,
    *,
    faces: str = "auto",
    predictor: Path | None = None,
    folders: Sequence[Path] = (),
    threshold: float | None = None,
) -> Predictor:
    """Reads weights and what they say of their use.

    Args:
        weights: A checkpoint, an adapter, a model folder with a trained head, or an exported ONNX file, which
            ONNX Runtime scores on the processor in its own precision.
        settings: ``device``, ``precision``, ``test_batchSize``, ``frame_num.test``, ``manualSeed`` and what
            builds the model; ``None``: the defaults at the checkpoint's own resolution.
        faces: ``auto`` (the weights' own recipe), a finder, ``cropped`` or ``whole``.
        predictor: A landmark model of dlib.
        folders: Where hosts keep dlib's 81-point model.
        threshold: In place of the one that the weights carry.

    Raises:
        UserError: If the weights cannot be used or a face finder is not there.
    """
    look_at(weights, onnx=True)
    path = str(Path(weights).expanduser().resolve())
    if settings is None:
        settings = Settings()
    onnx = OnnxDetector(path) if path.endswith(ONNX) else None
    stated, fit = (read_statement(path), told_by(path).fit) if onnx is None else (onnx.statement, onnx.fit)
    chosen = choose_faces(faces, stated.crop, fit, predictor=predictor, folders=folders)
    if chosen.finder is not None:
        chosen.finder.make()  # its errors belong before the model is built
    if onnx is not None:
        said = {
            key: value
            for key in ("mean", "std", "interpolation", "resolution")
            if (value := getattr(stated, key))
        }
        return Predictor(onnx, settings.changed(**said), chosen, rule_of(stated.calibration, threshold))
    resolution = read_checkpoint(path).resolution
    settings = obey(settings.changed(pretrained_weights=path, resolution=resolution))
    model = EffortFinetuneDetector(settings)
    if model.load_report is None or NEW_HEAD in model.load_report.derived.values():
        raise UserError(
            f"--weights {path}",
            got="a plain CLIP, whose head would be random",
            expected="a checkpoint with a trained head",
            next_step="fine-tune it first: effort-finetune finetune",
        )
    model = model.to(choose_device(settings.device)).eval()
    return Predictor(model, settings, chosen, rule_of(stated.calibration, threshold))
