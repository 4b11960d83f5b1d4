"""Sample-weighted means of the loss terms, resumable to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from effort_finetune.core.errors import RunFailure


@dataclass
class EpochProgress:
    """How far an epoch has come and what it has summed up; the whole state of a half-done epoch.

    Attributes:
        epoch: Number of the epoch.
        batches: Batches taken from the loader.
        steps: Optimiser steps made.
        skipped_steps: Steps the fp16 scaler left out because a gradient overflowed.
        samples: Frames trained on; ``real`` and ``fake`` are its parts.
        missing: Frames that could not be read.
        seconds: Time spent in the epoch's training loop.
        data_seconds: The part of it spent waiting for the loader.
        sums: Per loss term, the sum over frames; ``weights`` the number of frames behind it, or the sum of
            their class weights.
    """

    epoch: int
    batches: int = 0
    steps: int = 0
    skipped_steps: int = 0
    samples: int = 0
    real: int = 0
    fake: int = 0
    missing: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def add_batch(self, terms: Mapping[str, float], *, fake: int, size: int, weight: float) -> None:
        """Adds a batch.

        ``real`` and ``fake`` are means over one class. Every other term is what the loss divides by
        ``weight``; summed with it, the mean of an epoch does not depend on how it was cut into batches.

        Args:
            terms: The loss terms of the batch.
            fake: Its fake frames.
            size: Its frames.
            weight: Its frames, or the sum of their class weights.
        """
        self.samples += size
        self.fake += fake
        self.real += size - fake
        for term, value in terms.items():
            share = {"real": size - fake, "fake": fake}.get(term, weight)
            if share:
                self.sums[term] = self.sums.get(term, 0.0) + value * share
                self.weights[term] = self.weights.get(term, 0) + share

    def add(self, other: EpochProgress) -> None:
        """Adds the frames and losses of another one, not its batches, steps and times."""
        self.samples += other.samples
        self.fake += other.fake
        self.real += other.real
        self.missing += other.missing
        for term, value in other.sums.items():
            self.sums[term] = self.sums.get(term, 0.0) + value
            self.weights[term] = self.weights.get(term, 0) + other.weights[term]

    def check_missing(self, allowed: float) -> int:
        """Returns how many frames were missing.

        Raises:
            RunFailure: If it is a larger share than allowed.
        """
        rate = self.missing / max(self.samples + self.missing, 1)
        if rate > allowed:
            raise RunFailure(
                f"{self.missing} of {self.samples + self.missing} training frames could not be read "
                f"({rate:.2%}, allowed {allowed:.2%}); next: effort-finetune check-data, or raise "
                "max_missing_rate"
            )
        return self.missing

    def means(self) -> dict[str, float]:
        """Returns the mean of every term over the frames it was computed on."""
        return {term: total / self.weights[term] for term, total in self.sums.items()}

    def summary(self) -> dict[str, Any]:
        """Returns the epoch's entry for history and results."""
        counts = asdict(self)
        del counts["sums"], counts["weights"], counts["epoch"]
        rate = self.samples / self.seconds if self.seconds else None
        return {"loss": self.means(), **counts, "samples_per_second": rate}

    def state_dict(self) -> dict[str, Any]:
        """Returns plain numbers only, so that ``weights_only`` loading takes them."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> EpochProgress:
        """Restores :meth:`state_dict`."""
        return cls(**state)
