"""Measures how often the 95 % intervals hold the true value.

    python benchmarks/coverage.py                                 # 1,000 sets a cell
    python benchmarks/coverage.py --sets 50 --videos 30+30 --auc 0.9   # does it run?

Scores are binormal: a video's score is normal with its class's mean, its frames vary around it, and the true
values are those of 400,000 samples (the AUC's is exact). Sets without an interval are counted apart. Beside
each coverage stands the mean width over that of the plain percentile bootstrap on the same sets.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from effort_finetune.core.files import write_json
from effort_finetune.core.metrics import TABLE, binary_metrics, sorted_scores
from effort_finetune.evaluate.intervals import BOUNDED, confidence_intervals, resampled_metrics
from effort_finetune.evaluate.resampling import resample_videos

HERE = Path(__file__).parent
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
        name: {"held": 0, "below": 0, "above": 0, "null": 0, "width": 0.0, "percentile": 0.0}
        for name in BOUNDED
        if true[name] is not None
    }
    for number in range(options.sets):
        label, prob, video, video_label = draw(rng, reals, fakes, auc, frames)
        counts = resample_videos(video_label, samples=options.resamples, seed=number)
        point = binary_metrics(label, prob)
        intervals = confidence_intervals(point, label, prob, video, counts, threshold=0.5)["intervals"]
        plain = resampled_metrics(sorted_scores(label, prob, video), list(found), counts)
        for name, tally in found.items():
            if (bounds := intervals[name]) is None:
                tally["null"] += 1
                continue
            low, high = bounds
            side = "above" if true[name] > high + 1e-12 else "below" if true[name] < low - 1e-12 else "held"
            tally[side] += 1
            tally["width"] += high - low
            tally["percentile"] += float(np.diff(np.nanquantile(plain[name], (0.025, 0.975)))[0])
    return {name: summary(tally) for name, tally in found.items()}


def summary(tally: dict[str, float]) -> dict[str, Any]:
    """Turns sums into the figures that are published."""
    sets = tally["held"] + tally["below"] + tally["above"]
    return {
        "coverage": tally["held"] / sets if sets else None,
        "true_value_below": int(tally["below"]),
        "true_value_above": int(tally["above"]),
        "null_sets": int(tally["null"]),
        "mean_width": tally["width"] / sets if sets else None,
        "times_percentile_width": tally["width"] / tally["percentile"] if tally["percentile"] else None,
    }


def intervals_part(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each size, AUC and level."""
    for size in options.videos:
        reals, fakes = map(int, size.split("+"))
        for auc in options.auc:
            for level, frames in (("video", 1), ("frame", options.frames)):
                start = time.perf_counter()
                metrics = cell(reals, fakes, auc, options, frames)
                seconds = time.perf_counter() - start
                yield {"videos": size, "auc": auc, "level": level, "seconds": seconds, "metrics": metrics}


def line(row: dict[str, Any], name: str) -> str:
    """Returns one metric of a row as text."""
    found = row["metrics"][name]
    if found["coverage"] is None:
        return f"{row['videos']:>8} {row['auc']:.2f} {row['level']:<5} {name:<16} no interval in any set"
    return (
        f"{row['videos']:>8} {row['auc']:.2f} {row['level']:<5} {name:<16} {found['coverage']:.3f}  "
        f"missed below {found['true_value_below']}, above {found['true_value_above']}, "
        f"null {found['null_sets']}, {found['times_percentile_width']:.2f} x percentile"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one part and writes its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets a cell")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--frames", type=int, default=4, help="of a video, at the frame level")
    parser.add_argument("--videos", nargs="+", default=list(SIZES), metavar="REALS+FAKES")
    parser.add_argument("--auc", nargs="+", type=float, default=list(AUCS))
    parser.add_argument("--metrics", nargs="+", choices=list(TABLE), help="to print (default: all)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "coverage.json")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    about = {"sets": options.sets, "resamples": options.resamples, "frames_per_video": options.frames}
    for row in intervals_part(options):
        rows.append(row)
        for name in options.metrics or row["metrics"]:
            if name in row["metrics"]:
                print(line(row, name), flush=True)
        # After every row: an interrupted run keeps what it measured.
        write_json(options.output, {**about, "level": 0.95, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
