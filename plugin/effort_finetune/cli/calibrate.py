"""``effort-finetune calibrate``: temperature, bias, thresholds and a band for "unsure" from val scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError

NAME = "calibrate"
HELP = (
    "Fit a calibration on the scores of validation videos: temperature and bias, thresholds (balanced, "
    "FPR 1 %% and 5 %%, a cost), and a band in which a verdict is unsure. Needs no model."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the score files and what is fitted."""
    parser.add_argument(
        "scores",
        type=Path,
        nargs="+",
        help="score files of val videos, as evaluate writes them",
    )
    parser.add_argument("--error", type=float, default=0.1, help="of the band (default: %(default)s)")
    parser.add_argument("--cost", type=float, help="of a real called fake, a missed fake costing 1")
    parser.add_argument(
        "--output", type=Path, default=Path("calibration.json"), help="(default: %(default)s)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Fits, writes the calibration and prints it.

    Raises:
        UserError: If a file is no score file, or the videos cannot be calibrated on.
    """
    import numpy as np

    from effort_finetune.core.files import write_json
    from effort_finetune.evaluate.calibration import fit, reliability
    from effort_finetune.evaluate.score_file import read_scores

    if not 0 < args.error < 0.5:
        raise UserError("--error", got=str(args.error), expected="a number between 0 and .5")
    if args.cost is not None and not 0 < args.cost < 1e6:
        raise UserError("--cost", got=str(args.cost), expected="a number above 0")
    label, prob = (
        np.concatenate(part)
        for part in zip(*(read_scores(path).by_video() for path in args.scores), strict=True)
    )
    about = {
        "files": [path.name for path in args.scores],
        "real": int(np.sum(label == 0)),
        "fake": int(label.sum()),
    }  # fmt: skip
    found = fit(label, prob, error=args.error, cost=args.cost, fitted_on=about)
    document = {
        **found.to_dict(),
        "reliability": {"raw": reliability(label, prob), "calibrated": reliability(label, found.apply(prob))},
    }
    write_json(args.output, document)
    print(f"temperature {found.temperature:.4f}, bias {found.bias:+.4f}")
    for name in ("nll", "ece", "brier"):
        print(f"{name} of these videos: {found.before[name]:.4f} raw, {found.after[name]:.4f} calibrated")
    for name, value in found.thresholds.items():
        print(f"threshold {name}: {'-' if value is None else f'{value:.4f}'}")
    if found.unsure is not None:
        print(f"unsure between {found.unsure[0]:.4f} and {found.unsure[1]:.4f}, error rate {found.error:g}")
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(f"written: {args.output}")
    return 0
