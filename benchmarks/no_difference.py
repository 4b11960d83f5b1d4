"""Measures how often a comparison sees a difference between two detectors that are equally good.

    python benchmarks/no_difference.py                # 2,000 pairs a cell, tables of ten datasets
    python benchmarks/no_difference.py --pairs 100    # does it run?

Two detectors see the same videos, share a part of the variance of their scores and have the same true AUC.
The paired interval should exclude 0 in 5 of 100 pairs, and of tables of ten datasets at most 5 of 100 may use
a word ("better", "worse": the interval excludes 0 and Holm's p is under .05). Beside the AUC, whose interval
is DeLong's, stand metrics with an interval of the paired bootstrap; they never bear a word.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from effort_finetune.core.files import write_json
from effort_finetune.evaluate.level_samples import Level
from effort_finetune.evaluate.paired import Difference, differences, holm

HERE = Path(__file__).parent
SIZES = ("30+30", "64+64", "150+150")
AUCS = (0.75, 0.9, 0.97)
SHARED = (0.2, 0.5, 0.8)
TABLE = 10


def pair(rng: np.random.Generator, label: Any, auc: float, shared: float) -> tuple[Level, Level]:
    """Draws the scores of two detectors on the same videos."""
    common = rng.normal(size=len(label))
    sides = []
    for _ in range(2):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=len(label))
        score = noise + np.sqrt(2) * stats.norm.ppf(auc) * (label - 0.5)
        sides.append(Level(label, 1 / (1 + np.exp(-score)), np.arange(len(label)), 0.5))
    return sides[0], sides[1]


def excludes_zero(found: Difference) -> bool:
    """Whether the interval is there and does not hold 0."""
    return found.interval is not None and (found.interval[0] > 0 or found.interval[1] < 0)


def cell(size: str, auc: float, shared: float, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one size, AUC and correlation."""
    reals, fakes = map(int, size.split("+"))
    label = np.r_[np.zeros(reals, int), np.ones(fakes, int)]
    rng = np.random.default_rng([options.seed, reals, fakes, int(auc * 1000), int(shared * 1000)])
    found = [differences(*pair(rng, label, auc, shared), ["auc"])["auc"] for _ in range(options.pairs)]
    words = []
    for start in range(0, len(found) - TABLE + 1, TABLE):
        table = found[start : start + TABLE]
        adjusted = holm([one.p if one.p is not None else 1.0 for one in table])
        words.append(any(p < 0.05 and excludes_zero(one) for p, one in zip(adjusted, table, strict=True)))
    bootstrapped = [
        differences(
            *pair(rng, label, auc, shared), options.metrics, samples=options.resamples, seed=number
        )
        for number in range(options.bootstrap_pairs)
    ]  # fmt: skip
    return {
        "videos": size,
        "auc": auc,
        "shared_variance": shared,
        "pairs": len(found),
        "interval_excludes_zero": float(np.mean([excludes_zero(one) for one in found])),
        "no_interval": sum(one.interval is None for one in found),
        "tables_of_ten": len(words),
        "tables_with_a_word": float(np.mean(words)) if words else None,
        "bootstrap_pairs": len(bootstrapped),
        "bootstrap_excludes_zero": {
            name: float(np.mean([excludes_zero(one[name]) for one in bootstrapped]))
            for name in options.metrics
            if bootstrapped
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Runs all cells and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--bootstrap_pairs", type=int, default=400, help="of the metrics beside the AUC")
    parser.add_argument("--resamples", type=int, default=500, help="of these metrics, drawn for each pair")
    parser.add_argument("--metrics", nargs="*", default=["ap", "eer", "f1"], help="beside the AUC")
    parser.add_argument("--auc", nargs="+", type=float, default=list(AUCS), help="true AUC of both")
    parser.add_argument("--shared", nargs="+", type=float, default=list(SHARED), help="part of the variance")
    parser.add_argument("--videos", nargs="+", default=list(SIZES), metavar="REALS+FAKES")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "no_difference.json")
    options = parser.parse_args(argv)
    rows = []
    for size in options.videos:
        for auc in options.auc:
            for shared in options.shared:
                rows.append(cell(size, auc, shared, options))
                print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
                about = {"seed": options.seed, "resamples": options.resamples}
                # After every cell: an interrupted run keeps what it measured.
                write_json(options.output, {**about, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
