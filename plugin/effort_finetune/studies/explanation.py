"""Why two results of one dataset differ: each factor put back alone, and what they leave over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from effort_finetune.studies.difference_factors import FACTORS, Document, Factor, Variant

Values = Mapping[str, float | None]
#: Numbers within this of each other count as equal: half a unit of a published figure's last of four digits.
ROUNDING = 5e-5
#: Unstated factors that may be supposed, one after the other.
MOST_SUPPOSED = 3


@dataclass(frozen=True)
class Share:
    """One factor's part of a gap.

    Attributes:
        factor: Its name.
        first: Its value in the first result.
        second: Its value in the second; where that states none, the supposed one.
        stated: Whether the second result states it.
        share: What the metric changes by when only this factor is put back in the first; ``None`` with
            ``reason``.
        reason: Why it could not be measured.
    """

    factor: str
    first: Any
    second: Any
    stated: bool
    share: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Explanation:
    """What is known of the gap between two numbers; ``sum(shares) + remainder == gap``.

    Attributes:
        dataset: The dataset.
        metric: ``<level>_<metric>``.
        first: Its value in the first result, as scored again.
        second: Its value in the second.
        gap: ``second - first``.
        shares: The factors, the largest first.
        remainder: What the shares leave: factors that act together, and what nobody stated.
        together: The value with all measured factors put back at once.
        alternatives: Unstated factors that were tried: name, value, and how far all numbers stay from the
            second result's with it (mean absolute difference over the metrics of both).
        notes: What a reader has to know.
    """

    dataset: str
    metric: str
    first: float
    second: float
    gap: float
    shares: tuple[Share, ...]
    remainder: float
    together: float | None
    alternatives: tuple[tuple[str, Any, float], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types only."""
        return asdict(self)


class Explainer:
    """Explains the gap of one dataset.

    Args:
        documents: The two results documents; the second may hold as little as its numbers.
        dataset: The dataset's name in both.
        start: How the first result was measured.
        measure: Returns all numbers of a variant, by ``<level>_<metric>``; raises ``UserError`` for a variant
            that cannot be measured here.
        candidates: Further values to try by factor, e.g. checkpoints; added to the factors' own.
        rounding: Numbers within this of each other count as equal.
    """

    def __init__(
        self,
        documents: tuple[Document, Document],
        dataset: str,
        start: Variant,
        measure: Callable[[Variant], Values],
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        rounding: float = ROUNDING,
    ) -> None:
        self.documents, self.dataset, self.start, self.measure = documents, dataset, start, measure
        self._given = candidates or {}
        self._rounding = rounding
        self._target = _numbers(documents[1], dataset)

    def explain(self, metric: str, *, unmeasurable: type[Exception]) -> Explanation:
        """Measures every factor.

        Args:
            metric: The number to explain, which the second result states.
            unmeasurable: What ``measure`` raises for a variant that cannot be measured here.
        """
        second = self._target[metric]
        first = self.measure(self.start)[metric]
        assert first is not None, "checked by the caller"
        notes: list[str] = []
        stated = _numbers(self.documents[0], self.dataset).get(metric)
        if stated is not None and abs(stated - first) > 1e-6:
            notes.append(
                f"the first result states {stated:.6f}; scored again here it is {first:.6f}: machine, "
                "versions or data differ, and shares start from the latter"
            )
        shares, together = [], self.start
        unstated: list[tuple[Factor, Any]] = []
        for factor in FACTORS:
            own, other = (factor.stated(document, self.dataset) for document in self.documents)
            if other is None or own is None:
                unstated += [(factor, own)] if other is None and factor.put is not None else []
                continue
            if own == other:
                continue
            share, reason = self._alone(factor, other, metric, first, unmeasurable)
            shares.append(Share(factor.name, own, other, True, share, reason))
            if share is not None and factor.put is not None:
                together = factor.put(together, other)
        supposed, together, alternatives, remarks = self._suppose(unstated, together, unmeasurable)
        for factor, own, value in supposed:
            share, reason = self._alone(factor, value, metric, first, unmeasurable)
            shares.append(Share(factor.name, own, value, False, share, reason))
        shares.sort(key=lambda one: -abs(one.share or 0.0))
        gap = second - first
        remainder = gap - sum(one.share or 0.0 for one in shares)
        return Explanation(
            self.dataset, metric, first, second, gap, tuple(shares), remainder,
            self.measure(together)[metric], tuple(alternatives), (*notes, *remarks),
        )  # fmt: skip

    def _alone(
        self, factor: Factor, value: Any, metric: str, first: float, unmeasurable: type[Exception]
    ) -> tuple[float | None, str | None]:
        if factor.put is None:
            return None, "no scoring again can put it back"
        try:
            found = self.measure(factor.put(self.start, value))[metric]
        except unmeasurable as error:
            return None, str(error)
        return (None, "the metric has no value then") if found is None else (found - first, None)

    def _suppose(
        self, unstated: Sequence[tuple[Factor, Any]], together: Variant, unmeasurable: type[Exception]
    ) -> tuple[list[tuple[Factor, Any, Any]], Variant, list[tuple[str, Any, float]], list[str]]:
        """Finds the unstated factors that bring all numbers to those of the second result, one at a time."""
        supposed: list[tuple[Factor, Any, Any]] = []
        tried: dict[tuple[str, str], tuple[str, Any, float]] = {}
        remarks: list[str] = []
        left = list(unstated)
        off = self._off(self.measure(together))
        while off > self._rounding and len(supposed) < MOST_SUPPOSED:
            found: list[tuple[float, Factor, Any, Any]] = []
            for factor, own in left:
                for value in (*self._given.get(factor.name, ()), *factor.candidates):
                    if value == own or factor.put is None:
                        continue
                    try:
                        distance = self._off(self.measure(factor.put(together, value)))
                    except unmeasurable:
                        continue
                    found.append((distance, factor, own, value))
                    tried.setdefault((factor.name, repr(value)), (factor.name, value, distance))
            if not found:
                break
            found.sort(key=lambda one: one[0])
            best, factor, own, value = found[0]
            if best > off / 2 and best > self._rounding:
                break  # nothing that was tried is the reason
            equal = [one for one in found[1:] if one[0] - best <= self._rounding / 10]
            if equal:
                names = ", ".join(f"{one[1].name} {one[3]}" for one in (found[0], *equal))
                remarks.append(f"cannot be told apart by these numbers: {names}")
            if any(one[1] is not factor for one in equal):
                break  # values of one factor have one share, e.g. more frames than a video holds
            assert factor.put is not None
            supposed.append((factor, own, value))
            together, off = factor.put(together, value), best
            left = [one for one in left if one[0] is not factor]
        if supposed:
            remarks.append("supposed values are not stated by the second result; they fit its numbers best")
        return supposed, together, sorted(tried.values(), key=lambda one: one[2]), remarks

    def _off(self, values: Values) -> float:
        pairs = [(values.get(name), own) for name, own in self._target.items()]
        known = [abs(value - own) for value, own in pairs if value is not None and own is not None]
        return sum(known) / len(known) if known else float("inf")


def _numbers(document: Document, dataset: str) -> dict[str, float]:
    """Returns the numbers that a document states of a dataset."""
    block = (document.get("datasets") or {}).get(dataset) or {}
    return {
        f"{level}_{name}": float(value)
        for level in ("frame", "video")
        for name, value in (block.get(level) or {}).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
