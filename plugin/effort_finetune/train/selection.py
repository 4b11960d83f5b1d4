"""Which epoch's weights are kept: chosen on validation data, and said so.

The test sets choose nothing unless ``select_on: test`` asks for it; the results then carry the
label ``oracle`` (a number no one can reach without the test labels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effort_finetune.evaluate.dataset_results import higher_is_better

Numbers = Mapping[str, "float | None"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a validation found; empty where nothing was measured.

    Attributes:
        values: The metric that chooses the checkpoint, by dataset; ``None`` where it cannot be computed.
        numbers: What history and curves keep, by dataset and name, ``loss`` among them.
        missing: Frames that could not be read, by dataset.
        interval: Computes the 95 % interval of the metric, by dataset; ``None`` where there is no way to.
    """

    values: Numbers = field(default_factory=dict)
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    interval: Callable[[], Mapping[str, list[float] | None]] | None = None

    @property
    def mean(self) -> float | None:
        """The metric's mean over the datasets that have it."""
        return mean_of_known(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Returns what history keeps."""
        return {
            "selection": {name: dict(numbers) for name, numbers in self.numbers.items()},
            "selection_missing": dict(self.missing),
            "selection_value": self.mean,
        }


class Selector:
    """Remembers the best epoch seen.

    The score of an epoch is the mean of the metric over the datasets on which it can be
    computed; an epoch that lacks fewer datasets beats one that lacks more. Ties go to the lower
    loss on the same data (a small validation set often reaches AUC 1.0 early), then to the
    earlier epoch.

    Args:
        select_on: ``val``, ``last`` or ``test``.
        metric: ``metric_scoring``, e.g. ``video_auc`` or ``eer``.

    Raises:
        UserError: If there is no such metric.
    """

    def __init__(self, select_on: str, metric: str) -> None:
        self.select_on, self.metric = select_on, metric
        self.higher_is_better = higher_is_better(metric)
        self.best: dict[str, Any] | None = None
        self.last_epoch: int | None = None

    def consider(self, epoch: int, values: Numbers, losses: Numbers) -> bool:
        """Takes an epoch's numbers and tells whether its weights are now the chosen ones.

        Args:
            epoch: Number of the epoch.
            values: The metric by dataset, ``None`` where it cannot be computed; not read when
                ``select_on`` is ``last``.
            losses: The mean loss by dataset, for ties.
        """
        self.last_epoch = epoch
        if self.select_on == "last":
            self.best = {"epoch": epoch, "value": None, "loss": None, "left_out": []}
            return True
        candidate = {
            "epoch": epoch,
            "value": mean_of_known(values),
            "loss": mean_of_known(losses),
            "left_out": [name for name, value in values.items() if value is None],
        }
        if candidate["value"] is None or (self.best is not None and not self._beats(candidate, self.best)):
            return False
        self.best = candidate
        return True

    def comparable_value(self, values: Numbers) -> float | None:
        """Returns the score of an epoch, ``None`` if it lacks more datasets than the best epoch's.

        Args:
            values: The metric by dataset.
        """
        lacking = sum(value is None for value in values.values())
        return None if self.best and lacking > len(self.best["left_out"]) else mean_of_known(values)

    def _beats(self, new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
        if len(new["left_out"]) != len(old["left_out"]):
            return len(new["left_out"]) < len(old["left_out"])
        if new["value"] != old["value"]:
            return bool((new["value"] > old["value"]) == self.higher_is_better)
        return new["loss"] is not None and old["loss"] is not None and new["loss"] < old["loss"]

    @property
    def needs_fallback(self) -> bool:
        """Whether no epoch had a metric, so that the last one has to stand in, openly."""
        return self.best is None and self.last_epoch is not None

    def report(self, datasets: Sequence[str]) -> dict[str, Any]:
        """Returns the ``selection`` block of the results."""
        best = self.best or {"epoch": self.last_epoch, "value": None, "loss": None, "left_out": []}
        note = None
        if self.needs_fallback:
            note = f"{self.metric} could not be computed in any epoch; the last epoch was taken"
        elif best["left_out"]:
            note = f"{self.metric} has no value on {', '.join(best['left_out'])}; the mean leaves them out"
        return {
            "select_on": self.select_on,
            "oracle": self.select_on == "test",
            "metric": None if self.select_on == "last" else self.metric,
            "datasets": list(datasets),
            "epoch": best["epoch"],
            "value": best["value"],
            "tie_break": None if self.select_on == "last" else "lower loss, then earlier epoch",
            "fallback": self.needs_fallback,
            "note": note,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"best": self.best, "last_epoch": self.last_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.best, self.last_epoch = state["best"], state["last_epoch"]


def mean_of_known(values: Numbers) -> float | None:
    """Returns the mean of the values that are there, ``None`` when there is none."""
    known = [value for value in values.values() if value is not None]
    return sum(known) / len(known) if known else None
