"""One epoch of training: the only place where gradients are made and applied.

Shared by every run of the engine, whoever made its loaders.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from effort_finetune.core import ranks, seeding
from effort_finetune.core.device import is_out_of_memory
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.interrupt import Interrupted
from effort_finetune.core.precision import Precision, widened
from effort_finetune.data.batch_pieces import Batch, pieces
from effort_finetune.train.broken_step import BrokenStep, gradient_failure, loss_failure
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.micro_batch import MicroBatch
from effort_finetune.train.optim import highest_rates, learning_rate, trainable_parameters
from effort_finetune.train.sharpness import SAM
from effort_finetune.train.step_share import StepShare, count, missing_in, together


@dataclass(frozen=True, slots=True)
class Record:
    """What is reported every ``rec_iter`` batches: means over the batches since the last report.

    ``rates`` has the highest of each kind of weights. ``seconds_per_batch`` is the epoch's so far.
    """

    epoch: int
    batch: int
    batches: int
    loss: dict[str, float]
    lr: float
    rates: dict[str, float]
    grad_norm: float
    samples_per_second: float
    seconds_per_batch: float


@dataclass
class TrainingLoop:
    """Runs epochs over batches of ``{'image' [B,3,H,W], 'label' [B], ...}``.

    A step adds up the gradients of ``accumulation_steps`` batches, each weighted by its share of
    the step's frames, or of their class weights; so it is the gradient of one large batch, also
    for the shorter step at the end of an epoch and for batches of unequal size. Several processes add up
    theirs in the same way: the step is that of one process which has all of their frames.

    Args:
        model: A DeepfakeBench detector (``forward`` and ``get_losses``).
        optimizer: Over the model's trainable parameters.
        precision: Arithmetic of the forward pass; the losses are computed in float32.
        device: Where the model is.
        accumulation_steps: Batches of one optimiser step.
        clip_grad_norm: Largest total gradient norm; ``None`` does not clip.
        rec_iter: Batches between two records.
        on_record: Called with each :class:`Record`, the last one of an epoch included.
        on_step: Called after each step with the number of batches it took and the last loss.
        after_step: Called with each step made, as a part of it: rates and averages move.
        should_stop: Asked between steps; true ends the epoch with :class:`Interrupted`.
        micro: How many frames go through the model at once. Memory depends on it, steps do not.
        kept: Says where a forward pass keeps what its backward pass needs.
        describe: Names the frames of a batch for error messages.
        on_losses: Called with the rows of a step and the cross-entropy of each (with SAM, after its ascent).

    Attributes:
        rng: The generators' state after the last whole step: where a continuation takes up.
        is_whole: Whether the model is what whole steps made of it; false within the optimiser's step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    device: torch.device
    accumulation_steps: int = 1
    clip_grad_norm: float | None = None
    rec_iter: int = 50
    on_record: Callable[[Record], None] = lambda record: None
    on_step: Callable[[int, float], None] = lambda batches, loss: None
    after_step: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False
    describe: Callable[[Batch], list[str]] = lambda batch: []
    on_losses: Callable[[Tensor, Tensor], None] | None = None
    micro: MicroBatch = field(default_factory=MicroBatch)
    kept: Callable[[], AbstractContextManager[Any]] = nullcontext
    scaler: torch.amp.GradScaler = field(init=False)
    rng: seeding.RawState | None = field(init=False, default=None)
    is_whole: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.scaler = self.precision.make_scaler()
        self.parameters = trainable_parameters(self.model)
        self._stopping = False
        self._each: list[Tensor] = []  # cross-entropy of the frames of the pieces of this step so far

    def run_epoch(
        self,
        loader: Iterable[Batch],
        progress: EpochProgress,
        *,
        after_skip: Callable[[], None] = lambda: None,
    ) -> EpochProgress:
        """Trains on every batch the loader still owes this epoch.

        Args:
            loader: The epoch's batches, in the same order each time this epoch is run.
            progress: A fresh one, or that of an interrupted epoch: its batches are passed over.
            after_skip: Called when they are; puts back the generators' state.

        Raises:
            RunFailure: If a loss or gradient is not finite, memory runs out or there was no frame
                at all. The model keeps the state of the last good step.
            Interrupted: If ``should_stop`` said so.
        """
        self.model.train()
        batches = iter(loader)
        for _ in islice(batches, progress.batches):
            pass
        after_skip()
        self.rng = seeding.capture()
        total = len(loader) if isinstance(loader, Sized) else 0
        window, grad_norm, mark = EpochProgress(progress.epoch), 0.0, time.perf_counter()
        for group in self._groups(batches):
            loaded = time.perf_counter()
            grad_norm = self._step(group, (progress, window))
            self.rng = seeding.capture()
            now = time.perf_counter()
            for part in (progress, window):
                part.seconds += now - mark
                part.data_seconds += loaded - mark
            mark = now
            self.on_step(len(group), window.means().get("overall", math.nan))
            if window.batches >= self.rec_iter:
                self._record(progress, window, total, grad_norm)
                window = EpochProgress(progress.epoch)
            # Several processes end after the same step, which one of them was asked before.
            if self._stopping if ranks.current().size > 1 else self.should_stop():
                raise Interrupted
        if window.batches:
            self._record(progress, window, total, grad_norm)
        if not progress.samples:
            raise RunFailure(f"epoch {progress.epoch}: not one training frame could be read")
        return progress

    def _groups(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        while True:
            try:
                group = list(islice(batches, self.accumulation_steps))
            except RuntimeError:
                # Ctrl-C reaches the loader's workers too; their end is not the news then.
                if self.should_stop():
                    raise Interrupted from None
                raise
            if not group:
                return
            yield group

    def _step(self, group: Sequence[Batch], parts: tuple[EpochProgress, ...]) -> float:
        """Makes one optimiser step out of a group of batches and returns the gradient norm."""
        where = self._where(parts[0], len(group))
        made = self._gradient(group, where)
        self._stopping = made.stop
        if not made.sums.samples:
            count(group, made, parts)
            return 0.0
        if isinstance(self.optimizer, SAM):
            with self.optimizer.ascended():
                made = self._gradient(group, where)
        self.scaler.unscale_(self.optimizer)
        limit = math.inf if self.clip_grad_norm is None else self.clip_grad_norm
        norm = float(nn.utils.clip_grad_norm_(self.parameters, limit))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise gradient_failure(norm, where, [b for b in group if len(b["label"])], self.model)
        self.is_whole = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.after_step()
        if self.on_losses is not None:
            self.on_losses(torch.tensor(made.rows), torch.tensor(made.losses))
        count(group, made, parts)  # only now: a failed step leaves the state before it, and its batches owed
        for part in parts:
            part.steps += math.isfinite(norm)
            part.skipped_steps += not math.isfinite(norm)
        self.is_whole = True
        return norm

    def _gradient(self, group: Sequence[Batch], where: str) -> StepShare:
        """Leaves the gradient of a step, over all processes, in the parameters.

        Where a piece does not fit into memory, in whatever process, all take pieces of half its size, and the
        step is made anew: the same one, since pieces are weighed by their frames.

        Returns:
            The step of all processes.

        Raises:
            BrokenStep: If a loss is not finite, or one frame alone does not fit.
        """
        ours = ranks.current()
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            own = self._own_share(group, where)
            shares = [StepShare.of(told) for told in ours.exchange(own.to_dict())] if ours.size > 1 else [own]
            made = together(shares)
            if made.broken is not None:
                raise BrokenStep(*made.broken)
            if not made.too_large:
                break
            self.optimizer.zero_grad(set_to_none=True)
            self.micro.halve(made.too_large, where, self.model, self.device)
        if ours.size > 1:
            learned = [self.parameters[position] for position in made.learned]
            for parameter in learned:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            ours.add_up((p.grad for p in learned if p.grad is not None), own.weight / (made.weight or 1.0))
        return made

    def _own_share(self, group: Sequence[Batch], where: str) -> StepShare:
        """Adds up the gradients of this process's frames, as of one batch."""
        own = StepShare(stop=ranks.current().size > 1 and self.should_stop())
        own.sums.missing = missing_in(group)
        cut = pieces([batch for batch in group if len(batch["label"])], self.micro.frames)
        weights, self._each = [self._weight(piece["label"]) for piece in cut], []
        own.weight = sum(weights)
        try:
            terms = [
                self._backward(piece, weight / (own.weight or 1.0))
                for piece, weight in zip(cut, weights, strict=True)
            ]
            # One transfer for all numbers: each .item() would wait for the device anew.
            scalars = [value for piece_terms in terms for value in piece_terms.values()]
            flat = iter(torch.stack(scalars).tolist() if scalars else ())
            own.losses = torch.cat(self._each).tolist() if self._each else []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            own.too_large = max(len(piece["label"]) for piece in cut)
            return own
        for piece, piece_terms, weight in zip(cut, terms, weights, strict=True):
            values, labels = {name: next(flat) for name in piece_terms}, piece["label"]
            if not math.isfinite(values["overall"]):
                failure = loss_failure(values, where, self.describe(piece), piece, self.model)
                own.broken = [failure.guard, str(failure)]
                break
            own.sums.add_batch(values, fake=int((labels != 0).sum()), size=len(labels), weight=weight)
        own.rows = [int(row) for piece in cut for row in piece["index"]] if own.losses else []
        own.learned = [at for at, parameter in enumerate(self.parameters) if parameter.grad is not None]
        return own

    def _weight(self, labels: Tensor) -> float:
        """Returns what a batch's loss is divided by: its frames, or the sum of their class weights."""
        ask = getattr(self.model, "class_weights", None)  # a host's detector has none
        weights = ask() if callable(ask) else None
        return float(len(labels) if weights is None else weights[(labels != 0).long()].sum())

    def _backward(self, batch: Batch, share: float) -> dict[str, Tensor]:
        data = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        data["label"] = (data["label"] != 0).long()  # a host may number its forgery methods
        with self.kept(), self.precision.autocast():
            predictions = self.model(data)
        predictions = widened(predictions)
        if self.on_losses is not None:
            each = nn.functional.cross_entropy(predictions["cls"].detach(), data["label"], reduction="none")
            self._each.append(each.float())
        losses: dict[str, Tensor | None] = self.model.get_losses(data, predictions)  # type: ignore[operator]
        overall = losses["overall"]
        if overall is None:
            raise RunFailure("the detector's get_losses returned no 'overall' loss")
        self.scaler.scale(overall * share).backward()
        return {name: value.detach().float() for name, value in losses.items() if value is not None}

    def _where(self, progress: EpochProgress, size: int) -> str:
        return (
            f"epoch {progress.epoch}, step {progress.steps + progress.skipped_steps + 1} "
            f"(batches {progress.batches + 1} to {progress.batches + size}), "
            f"learning rate {learning_rate(self.optimizer):g}, {self.precision.name}"
        )

    def _record(self, progress: EpochProgress, window: EpochProgress, total: int, grad_norm: float) -> None:
        self.on_record(
            Record(
                epoch=progress.epoch,
                batch=progress.batches,
                batches=total,
                loss=window.means(),
                lr=learning_rate(self.optimizer),
                rates=highest_rates(self.optimizer),
                grad_norm=grad_norm,
                samples_per_second=window.samples / max(window.seconds, 1e-9),
                seconds_per_batch=progress.seconds / progress.batches,
            )
        )
