"""Running a detector over a loader: one probability and one logit a frame, nothing else kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effort_finetune.core import ranks
from effort_finetune.core.device import is_out_of_memory, release_memory
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.interrupt import Interrupted
from effort_finetune.core.progress import track
from effort_finetune.data.batch_pieces import piece

logger = logging.getLogger(__name__)

_SAME, _SAME_HALF = 1e-5, 1e-2  # what a softmax in float32 and in half precision may be off by


@dataclass(frozen=True)
class Scores:
    """Scores of the frames that could be read, sorted by their index in the dataset.

    Attributes:
        index: ``int64[N]``, position in the dataset.
        prob: ``float64[N]``, softmax probability of fake, computed in float64 from float32 logits.
        logit: ``float64[N]``, fake logit minus real logit (the log-odds of ``prob``).
        label: ``int64[N]``, 0 real, 1 fake.
        loss: Mean cross-entropy of the frames in nats: ``overall``, ``real``, ``fake``
            (``None`` where there is no such frame or it is not finite).
        missing: Indices of the frames that could not be read, ascending.
    """

    index: NDArray[np.int64]
    prob: NDArray[np.float64]
    logit: NDArray[np.float64]
    label: NDArray[np.int64]
    loss: dict[str, float | None]
    missing: list[int]


def score(
    model: nn.Module,
    loader: Iterable[Mapping[str, Any]],
    *,
    device: torch.device | str,
    autocast: torch.dtype | None = None,
    desc: str = "scoring",
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores:
    """Scores every readable frame of a loader in inference mode, each process of a run its part of them.

    The model is put into eval mode and back into the mode it was in. Features are dropped batch
    by batch, so memory does not grow with the dataset. A batch that does not fit into memory is scored in
    pieces; frames do not depend on each other.

    Args:
        model: A DeepfakeBench detector: ``model(batch, inference=True)['cls']`` is ``[B, 2]`` logits
            (real, fake).
        loader: Batches of :func:`effort_finetune.data.loader.make_loader`.
        device: Where the model is.
        autocast: ``torch.bfloat16`` or ``torch.float16``; ``None`` runs in the weights' own precision.
        desc: Words before the progress bar.
        should_stop: Asked before each batch; true ends the scoring with :class:`Interrupted`.

    Raises:
        Interrupted: If ``should_stop`` said so.
        RunFailure: If not even one frame fits into memory.
        ValueError: If the detector's ``cls`` is not ``[B, 2]``.
    """
    device = torch.device(device)
    indices, differences, labels, missing = [], [], [], []
    was_training = model.training
    model.eval()
    # Effort merges its residuals while its weights are constant; other detectors have nothing to merge.
    merged = getattr(model, "merged", nullcontext)
    asked = _Asked(model, device)
    try:
        with torch.inference_mode(), _autocast(device, autocast), merged():
            for number, batch in enumerate(track(loader, desc=desc, unit="batch"), start=1):
                if should_stop():
                    raise Interrupted
                logger.debug("%s: batch %d, %d frames", desc, number, len(batch["index"]))
                missing.extend(_indices(batch.get("missing")))
                if len(batch["index"]) == 0:
                    continue
                differences.append(asked.log_odds(batch))
                indices.append(_array(batch["index"], np.int64))
                # A host may number its forgery methods; every label >= 1 is a fake.
                labels.append((_array(batch["label"], np.int64) >= 1).astype(np.int64))
    finally:
        model.train(was_training)
    index, logit, label, missing = _of_all_processes(
        _concatenate(indices, np.int64),
        _concatenate(differences, np.float64),
        _concatenate(labels, np.int64),
        missing,
    )
    order = np.argsort(index, kind="stable")
    logit, label = logit[order], label[order]
    return Scores(
        index=index[order],
        prob=probability(logit),
        logit=logit,
        label=label,
        loss=cross_entropy(logit, label),
        missing=sorted(missing),
    )


class _Asked:
    """Asks a detector about batches, with as many frames at once as fit into memory.

    Args:
        model: The detector.
        device: Where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self._most: int | None = None

    def log_odds(self, batch: Mapping[str, Any]) -> NDArray[np.float64]:
        """Returns the log-odds of fake of a batch's frames, ``float64[B]``."""
        frames, found, done = len(batch["index"]), [], 0
        while done < frames:
            size = min(self._most or frames, frames - done)
            part = batch if size == frames else piece(batch, slice(done, done + size))
            answer = self._answer(part, size)
            if answer is None:
                self._halve(size)
                continue
            found.append(answer)
            done += size
        return np.concatenate(found)

    def _answer(self, batch: Mapping[str, Any], frames: int) -> NDArray[np.float64] | None:
        try:
            return log_odds(self.model(_to_device(batch, self.device), inference=True), frames)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _halve(self, too_large: int) -> None:
        if too_large == 1:
            raise RunFailure(
                f"{self.device} ran out of memory on one frame; next: precision bf16, fewer workers, or "
                "another device"
            )
        self._most = (too_large + 1) // 2
        release_memory(self.device)
        logger.warning(
            "%d frames at once did not fit into memory; from here on %d are scored at once, which changes no "
            "score; a smaller test_batchSize avoids the try",
            too_large,
            self._most,
        )


def _of_all_processes(
    index: NDArray[np.int64], logit: NDArray[np.float64], label: NDArray[np.int64], missing: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], list[int]]:
    """Puts together what each process scored; a process alone has all of it."""
    ours = ranks.current()
    if ours.size == 1:
        return index, logit, label, missing
    told = ours.exchange([index.tolist(), logit.tolist(), label.tolist(), missing])
    return (
        np.concatenate([np.asarray(part[0], np.int64) for part in told]),
        np.concatenate([np.asarray(part[1], np.float64) for part in told]),
        np.concatenate([np.asarray(part[2], np.int64) for part in told]),
        [row for part in told for row in part[3]],
    )


def log_odds(prediction: Mapping[str, torch.Tensor], frames: int) -> NDArray[np.float64]:
    """Returns the log-odds of fake, ``float64[B]``, that a detector's answer states.

    They are the difference of its two logits (``cls``); where its ``prob`` is not the softmax of these (some
    of the hosts' detectors have one output, or average several heads), ``prob`` counts, as in the hosts.

    Args:
        prediction: ``cls [B, 2]`` or ``prob [B]``, or both.
        frames: B.

    Raises:
        ValueError: If neither is there in its shape.
    """
    logits, prob = prediction.get("cls"), prediction.get("prob")
    given = None if prob is None or prob.numel() != frames else prob.detach().float().cpu().double().numpy()
    difference = None
    if logits is not None and logits.shape == (frames, 2):
        # Subtracting after the conversion keeps what float32 logits hold; MPS has no float64.
        wide = logits.float().cpu().double()
        difference = (wide[:, 1] - wide[:, 0]).numpy()
    if given is None:
        if difference is None:
            found = None if logits is None else tuple(logits.shape)
            raise ValueError(f"a detector's 'cls' must be [B, 2] logits, got {found} for {frames} frames")
        return difference
    given = given.reshape(-1)
    close = _SAME if prob is not None and prob.dtype == torch.float32 else _SAME_HALF
    if difference is not None and np.allclose(probability(difference), given, atol=close, equal_nan=True):
        return difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(given) - np.log1p(-given)


def probability(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the softmax probability of fake for ``logit = z_fake - z_real``, without overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def cross_entropy(logit: NDArray[np.float64], label: NDArray[np.int64]) -> dict[str, float | None]:
    """Returns the mean two-class cross-entropy in nats over all, real and fake frames."""
    with np.errstate(invalid="ignore"):  # a logit that is not finite has its null and reason below
        per_frame = np.logaddexp(0.0, np.where(label == 1, -logit, logit))
    parts = {"overall": per_frame, "real": per_frame[label == 0], "fake": per_frame[label == 1]}
    return {
        name: float(part.mean()) if len(part) and np.isfinite(part).all() else None
        for name, part in parts.items()
    }


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def _indices(value: torch.Tensor | None) -> list[int]:
    return [] if value is None else [int(i) for i in value]


def _array(value: torch.Tensor, dtype: type) -> NDArray[Any]:
    return value.cpu().numpy().astype(dtype)


def _concatenate(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype=dtype)
