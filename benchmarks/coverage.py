"""Measures how often the 95 % intervals hold the true value.

    python benchmarks/coverage.py                                 # 1,000 sets a cell
    python benchmarks/coverage.py --sets 50 --videos 30+30 --auc 0.9 --output try.json   # does it run?

A part of the sizes, AUCs, levels and metrics can be measured alone: its figures take the place of those in
the output, each beside the number of its sets.

Scores are binormal: a video's score is normal with its class's mean, its frames vary around it, and the true
values are those of 400,000 samples (the AUC's is exact). Sets without an interval are counted apart. Beside
each coverage stands the mean width over that of the plain percentile bootstrap, on every fourth set.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from effort_finetune.core.files import write_json
from effort_finetune.core.metrics import TABLE, binary_metrics, sorted_scores
from effort_finetune.core.weighted import SortedScores
from effort_finetune.evaluate.intervals import BOUNDED, confidence_intervals, resampled_metrics
from effort_finetune.evaluate.resampling import resample_videos

HERE = Path(__file__).parent
PLAIN_EVERY = 4  # sets whose percentile bootstrap is computed, too
WITHIN = 0.6  # share of a frame's variance that its video brings
SIZES = ("10+50", "30+30", "64+64", "150+150")
AUCS = (0.75, 0.9, 0.95, 0.98)


def draw(
    rng: np.random.Generator, reals: int, fakes: int, auc: float, frames: int
) -> tuple[Any, Any, Any, Any]:
    """Returns label, probability and video of each sample, and the videos' labels."""
    video_label = np.r_[np.zeros(reals, int), np.ones(fakes, int)]
    video = np.repeat(np.arange(len(video_label)), frames)
    shift = np.sqrt(2) * stats.norm.ppf(auc)
    score = rng.normal(size=len(video_label))[video]
    if frames > 1:
        score = np.sqrt(WITHIN) * score + np.sqrt(1 - WITHIN) * rng.normal(size=len(video))
    score = score + shift * (video_label[video] - 0.5)
    return video_label[video], 1 / (1 + np.exp(-2 * score)), video, video_label


def truth(reals: int, fakes: int, auc: float) -> dict[str, float]:
    """Returns the true value of each metric for this share of fakes."""
    times = 400_000 // (reals + fakes)
    label, prob, _, _ = draw(np.random.default_rng(1), reals * times, fakes * times, auc, 1)
    return {**binary_metrics(label, prob), "auc": auc}


def cell(reals: int, fakes: int, auc: float, options: argparse.Namespace, frames: int) -> dict[str, Any]:
    """Measures one size, AUC and level; returns name to coverage, misses, relative width and null sets."""
    true = truth(reals, fakes, auc)
    rng = np.random.default_rng([reals, fakes, int(auc * 100), frames])
    found: dict[str, dict[str, float]] = {
        name: {**dict.fromkeys(("held", "below", "above", "null"), 0), "width": 0.0, "own": 0.0, "plain": 0.0}
        for name in options.metrics or BOUNDED
        if true[name] is not None
    }
    for number in range(options.sets):
        label, prob, video, video_label = draw(rng, reals, fakes, auc, frames)
        counts = resample_videos(video_label, samples=options.resamples, seed=number)
        point = point_values(sorted_scores(label, prob), list(found))
        intervals = confidence_intervals(point, label, prob, video, counts, threshold=0.5)["intervals"]
        compared = number % PLAIN_EVERY == 0
        plain = resampled_metrics(sorted_scores(label, prob, video), list(found) if compared else [], counts)
        for name, tally in found.items():
            if (bounds := intervals[name]) is None:
                tally["null"] += 1
                continue
            low, high = bounds
            side = "above" if true[name] > high + 1e-12 else "below" if true[name] < low - 1e-12 else "held"
            tally[side] += 1
            tally["width"] += high - low
            if compared:
                tally["own"] += high - low
                tally["plain"] += float(np.diff(np.nanquantile(plain[name], (0.025, 0.975)))[0])
    return {name: summary(tally) for name, tally in found.items()}


def point_values(scores: SortedScores, names: list[str]) -> dict[str, Any]:
    """Returns the block of metrics of a set, those alone that are measured."""
    asked = [name for name in names if TABLE[name].reason(scores) is None]
    values = {
        name: float(value[0]) for name, value in scores.apply({n: TABLE[n].function for n in asked}).items()
    }
    found = {name: value for name, value in values.items() if not np.isnan(value)}
    reasons = {name: "not measured or undefined" for name in BOUNDED if name not in found}
    return {**dict.fromkeys(BOUNDED), **found, "null_reasons": reasons}


def summary(tally: dict[str, float]) -> dict[str, Any]:
    """Turns sums into the figures that are published."""
    sets = tally["held"] + tally["below"] + tally["above"]
    return {
        "sets": int(sets + tally["null"]),
        "coverage": tally["held"] / sets if sets else None,
        "true_value_below": int(tally["below"]),
        "true_value_above": int(tally["above"]),
        "null_sets": int(tally["null"]),
        "mean_width": tally["width"] / sets if sets else None,
        "times_percentile_width": tally["own"] / tally["plain"] if tally["plain"] else None,
    }


def intervals_part(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each size, AUC and level."""
    for size in options.videos:
        reals, fakes = map(int, size.split("+"))
        for auc in options.auc:
            for level in options.levels:
                frames = 1 if level == "video" else options.frames
                metrics = cell(reals, fakes, auc, options, frames)
                yield {"videos": size, "auc": auc, "level": level, "metrics": metrics}


def kept(output: Path, about: dict[str, Any]) -> dict[tuple[str, float, str], dict[str, Any]]:
    """Returns the rows that an earlier run of the same kind left, by size, AUC and level."""
    if not output.exists():
        return {}
    before = json.loads(output.read_text())
    if any(before.get(key) != value for key, value in about.items()):
        raise SystemExit(f"{output} was measured with other options; name another --output")
    return {(row["videos"], row["auc"], row["level"]): row for row in before["rows"]}


def line(row: dict[str, Any], name: str) -> str:
    """Returns one metric of a row as text."""
    found = row["metrics"][name]
    if found["coverage"] is None:
        return f"{row['videos']:>8} {row['auc']:.2f} {row['level']:<5} {name:<16} no interval in any set"
    width = found["times_percentile_width"]
    return (
        f"{row['videos']:>8} {row['auc']:.2f} {row['level']:<5} {name:<16} {found['coverage']:.3f}  "
        f"missed below {found['true_value_below']}, above {found['true_value_above']}, "
        f"null {found['null_sets']}, {'-' if width is None else format(width, '.2f')} x percentile"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one part and writes its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets a cell")
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--frames", type=int, default=4, help="of a video, at the frame level")
    parser.add_argument("--videos", nargs="+", default=list(SIZES), metavar="REALS+FAKES")
    parser.add_argument("--auc", nargs="+", type=float, default=list(AUCS))
    parser.add_argument("--levels", nargs="+", choices=["video", "frame"], default=["video", "frame"])
    parser.add_argument("--metrics", nargs="+", choices=list(BOUNDED), help="default: all")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "coverage.json")
    options = parser.parse_args(argv)
    about = {"resamples": options.resamples, "frames_per_video": options.frames, "level": 0.95}
    rows = kept(options.output, about)
    for row in intervals_part(options):
        key = row["videos"], row["auc"], row["level"]
        for name in row["metrics"]:
            print(line(row, name), flush=True)
        before = rows[key]["metrics"] if key in rows else {}
        rows[key] = {**row, "metrics": {**before, **row["metrics"]}}
        # After every row: an interrupted run keeps what it measured.
        write_json(options.output, {**about, "rows": [rows[key] for key in sorted(rows)]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
