"""Measures how often a comparison sees a difference between two detectors that are equally good.

    python benchmarks/no_difference.py                # 2,000 pairs a size, tables of ten datasets
    python benchmarks/no_difference.py --pairs 100    # does it run?

Two detectors see the same videos, share half of the variance of their scores and have the same true AUC. The
paired interval should exclude 0 in 5 of 100 pairs, and of tables of ten datasets at most 5 of 100 may use a
word ("better", "worse": the interval excludes 0 and Holm's p is under .05).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from effort_finetune.core.files import write_json
from effort_finetune.evaluate.paired import Difference, Level, differences, holm
from effort_finetune.evaluate.resampling import resample_videos

HERE = Path(__file__).parent
SIZES = ("30+30", "64+64", "150+150")
SHARED = 0.5
TABLE = 10


def pair(rng: np.random.Generator, label: Any, auc: float, counts: Any) -> Difference:
    """Draws the scores of two detectors and compares them."""
    common = rng.normal(size=len(label))
    sides = []
    for _ in range(2):
        noise = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * rng.normal(size=len(label))
        score = noise + np.sqrt(2) * stats.norm.ppf(auc) * (label - 0.5)
        sides.append(Level(label, 1 / (1 + np.exp(-score)), np.arange(len(label)), 0.5))
    return differences(*sides, ["auc"], counts=counts)["auc"]


def excludes_zero(found: Difference) -> bool:
    """Whether the interval is there and does not hold 0."""
    return found.interval is not None and (found.interval[0] > 0 or found.interval[1] < 0)


def size_row(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one size."""
    reals, fakes = map(int, size.split("+"))
    label = np.r_[np.zeros(reals, int), np.ones(fakes, int)]
    rng = np.random.default_rng([reals, fakes])
    # One set of draws for all pairs: an interval's error is its own, the draws' is 1 % of it.
    counts = resample_videos(label, samples=options.resamples, seed=0)
    found = [pair(rng, label, options.auc, counts) for _ in range(options.pairs)]
    words = []
    for start in range(0, len(found) - TABLE + 1, TABLE):
        table = found[start : start + TABLE]
        adjusted = holm([one.p if one.p is not None else 1.0 for one in table])
        words.append(any(p < 0.05 and excludes_zero(one) for p, one in zip(adjusted, table, strict=True)))
    return {
        "videos": size,
        "auc": options.auc,
        "pairs": len(found),
        "interval_excludes_zero": float(np.mean([excludes_zero(one) for one in found])),
        "delong_p_under_05": float(np.mean([one.p is not None and one.p < 0.05 for one in found])),
        "no_interval": sum(one.interval is None for one in found),
        "tables_of_ten": len(words),
        "tables_with_a_word": float(np.mean(words)) if words else None,
    }


def main(argv: list[str] | None = None) -> int:
    """Runs all sizes and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--auc", type=float, default=0.9, help="true AUC of both")
    parser.add_argument("--videos", nargs="+", default=list(SIZES), metavar="REALS+FAKES")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "no_difference.json")
    options = parser.parse_args(argv)
    rows = []
    for size in options.videos:
        rows.append(size_row(size, options))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        write_json(options.output, {"shared_variance": SHARED, "resamples": options.resamples, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
