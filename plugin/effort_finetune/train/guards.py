"""What goes wrong in fine-tuning, as a table: when it counts as seen, what is said, and what helps.

Each row of :data:`GUARDS` looks at the epochs so far. A row that sees something speaks in the log after that
epoch, once a run, and stands in ``training.findings`` of the results. What ends a run at once, a loss that is
not finite or want of memory, is looked into by :mod:`~effort_finetune.train.broken_step`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effort_finetune.train.selection import Selector, mean_of_known

#: Below this an AUC, AP or accuracy is low: half of the way from guessing to certainty.
LOW = 0.75
#: Epochs in a row in which train loss falls and val loss rises.
APART = 2
#: Share of an epoch, and seconds, spent waiting for frames that are worth a word.
WAITING, WAITING_SECONDS = 0.3, 5.0
#: A train loss that fell by a smaller share over a run of two epochs or more did not move.
MOVED = 0.01
#: Share of the whole gain that the last epoch of three or more brought: the run ended while it still rose.
STILL_RISING = 0.2
_RATES = ("auc", "ap", "acc", "acc_real", "acc_fake", "f1", "precision", "recall")


@dataclass(frozen=True)
class Watched:
    """What the guards look at.

    Attributes:
        start: What the weights scored before the first step; ``None`` where no data chooses.
        history: The epochs so far.
        selector: The metric and the selected epoch.
        over: Whether no epoch is owed any more.
        data: Sentences on the training data that may explain a low number.
    """

    start: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]
    selector: Selector
    over: bool = False
    data: Sequence[str] = ()


@dataclass(frozen=True)
class Guard:
    """One row of the table.

    Attributes:
        name: As the guide's troubleshooting table calls it.
        sees: Returns a sentence with the figures where the trouble is there, else ``None``.
        next_step: What helps.
    """

    name: str
    sees: Callable[[Watched], str | None]
    next_step: str


def findings(watched: Watched) -> list[dict[str, str]]:
    """Returns ``guard, says, next`` of every row that sees its trouble."""
    if not watched.history:
        return []
    seen = ((guard, guard.sees(watched)) for guard in GUARDS)
    return [{"guard": g.name, "says": says, "next": g.next_step} for g, says in seen if says is not None]


def _low_accuracy(run: Watched) -> str | None:
    best, metric = run.selector.best, run.selector.metric
    if not run.over or best is None or best["value"] is None or _rate(metric) is None or best["value"] >= LOW:
        return None
    before = None if run.start is None else run.start["selection_value"]
    was = "" if before is None else f"{before:.4f} before the first step, "
    data = f"; of the data: {'; '.join(run.data)}" if run.data else ""
    return f"{metric} {was}{best['value']:.4f} at the selected epoch {best['epoch']}{data}"


def _rate(metric: str) -> str | None:
    name = metric.removeprefix("video_").removeprefix("frame_")
    return name if name in _RATES else None


def _overfitting(run: Watched) -> str | None:
    points = [(e["epoch"], _train_loss(e), _val_loss(e)) for e in run.history]
    known = [(epoch, train, val) for epoch, train, val in points if train is not None and val is not None]
    if len(known) <= APART or len(known) != len(points):
        return None
    last = known[-APART - 1 :]
    pairs = list(itertools.pairwise(last))
    if not all(b[1] < a[1] and b[2] > a[2] for a, b in pairs):
        return None
    (first, train, val), (epoch, now_train, now_val) = last[0], last[-1]
    return (
        f"epochs {first} to {epoch}: train loss {train:.4f} to {now_train:.4f}, val loss {val:.4f} to "
        f"{now_val:.4f}; the gap between them went from {val - train:+.4f} to {now_val - now_train:+.4f}"
    )


def _train_loss(entry: Mapping[str, Any]) -> float | None:
    loss: float | None = entry["train"]["loss"].get("overall")
    return loss


def _val_loss(entry: Mapping[str, Any]) -> float | None:
    return mean_of_known({name: numbers.get("loss") for name, numbers in entry["selection"].items()})


def _slow_training(run: Watched) -> str | None:
    train = run.history[-1]["train"]
    waited, whole = train["data_seconds"], train["seconds"]
    if waited < WAITING_SECONDS or waited < WAITING * whole:
        return None
    return (
        f"{waited / whole:.0%} of epoch {run.history[-1]['epoch']} ({waited:.0f} of {whole:.0f} s) was spent "
        "waiting for frames, the device idle meanwhile"
    )


def _slow_convergence(run: Watched) -> str | None:
    losses = [loss for loss in map(_train_loss, run.history) if loss is not None]
    if len(losses) >= 2 and losses[0] > 0 and losses[0] - losses[-1] < MOVED * losses[0]:
        return f"train loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last one"
    values = [entry["selection_value"] for entry in run.history]
    start = None if run.start is None else run.start["selection_value"]
    if not run.over or len(values) < 3 or start is None or None in values:
        return None
    sign = 1 if run.selector.higher_is_better else -1
    rises = [sign * (value - start) for value in values]
    gained, last = rises[-1], rises[-1] - max(rises[:-1])
    if gained <= 0 or last < STILL_RISING * gained:
        return None
    return f"the last of {len(values)} epochs still brought {last / gained:.0%} of the whole gain"


#: The guide's troubleshooting table.
GUARDS = (
    Guard(
        "low accuracy",
        _low_accuracy,
        "effort-finetune check-data; then more epochs, another optimizer.lr, nearer weights",
    ),
    Guard(
        "overfitting",
        _overfitting,
        "early_stopping.patience 3, more data or data_aug, a higher optimizer.weight_decay",
    ),
    Guard(
        "slow training",
        _slow_training,
        "more workers, effort-finetune prepare lmdb, a faster disk; a smaller train_batchSize does not help",
    ),
    Guard("slow convergence", _slow_convergence, "optimizer.lr 1e-3, more epochs, unfreeze more layers"),
)
