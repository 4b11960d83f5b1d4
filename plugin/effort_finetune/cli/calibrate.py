"""``effort-finetune calibrate``: temperature, bias, thresholds and a band for "unsure" from val videos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import add_settings_arguments, open_run
from effort_finetune.core.errors import UserError
from effort_finetune.core.launch import refuse_several
from effort_finetune.data.missing_inputs import refuse_missing
from effort_finetune.export.calibrated_name import calibrated_name, check_output
from effort_finetune.weights.first_look import look_at

if TYPE_CHECKING:
    from effort_finetune.evaluate.val_scores import ValScores
    from effort_finetune.weights.stored_calibration import StoredCalibration

NAME = "calibrate"
HELP = (
    "Fit a calibration on validation videos: temperature and bias, thresholds (balanced, FPR 1 %% and 5 %%, "
    "a cost), and a band in which a verdict is unsure. With --weights and --val_dataset the videos are "
    "scored here; with score files or a results.json nothing is. --weights get a copy that carries it."
)
COLUMNS = ("video", "label", "prob")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where scores come from, what is fitted and where it goes."""
    parser.add_argument(
        "scores", type=Path, nargs="*",
        help="results.json (or its folder) or score CSVs of val videos, of any detector",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=Path, help="what is calibrated: .pth, adapter, merged folder or ONNX file"
    )
    parser.add_argument("--val_dataset", nargs="+", metavar="NAME", help="val videos to score with --weights")
    for name in COLUMNS:
        parser.add_argument(f"--{name}_column", help=f"of a CSV of another program (default: {name})")
    parser.add_argument("--error", type=float, default=0.1, help="of the band (default: %(default)s)")
    parser.add_argument("--cost", type=float, help="of a real called fake, a missed fake costing 1")
    parser.add_argument(
        "--output", type=Path,
        help="calibrated copy of --weights (default: NAME_calibrated beside them), or without --weights the "
        "JSON to write (default: calibration.json)",
    )  # fmt: skip
    skip = ("pretrained_weights", "output_dir", "resume", "val_dataset", "test_dataset")
    add_settings_arguments(parser, command="evaluate", skip=skip)


def run(args: argparse.Namespace, context: Context) -> int:
    """Fits, stores or writes the calibration and prints it.

    Raises:
        UserError: If a file is no score file, or the videos cannot be calibrated on.
        RunFailure: If val videos could not be scored.
    """
    refuse_several(NAME, "without torchrun")
    _check(args)
    if args.weights is not None:
        output = args.output or calibrated_name(args.weights)
        check_output(output)
    scores = _scored(args, context) if args.val_dataset else _read(args)

    from effort_finetune.evaluate.calibration import fit
    from effort_finetune.evaluate.feature_fit import fit_features

    features = None
    if scores.features is not None and scores.video is not None:
        features = fit_features(scores.features, scores.video)
    found = fit(
        scores.label, scores.prob, error=args.error, cost=args.cost, fitted_on=scores.fitted_on(),
        warnings=scores.warnings, features=None if features is None else features.to_dict(),
    )  # fmt: skip
    _say(found)
    if args.weights is not None:
        from effort_finetune.export.calibrated import store_calibration

        print(f"written: {store_calibration(args.weights, found, output)}, calibration {found.sha256[:16]}")
        return 0
    from effort_finetune.core.files import write_json

    path = write_json(args.output or Path("calibration.json"), found.to_dict())
    print(f"written: {path}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if not 0 < args.error < 0.5:
        raise UserError("--error", got=str(args.error), expected="a number between 0 and .5")
    if args.cost is not None and not 0 < args.cost < 1e6:
        raise UserError("--cost", got=str(args.cost), expected="a number above 0")
    if bool(args.scores) == bool(args.val_dataset):
        raise UserError(
            "calibrate",
            got="score files and --val_dataset" if args.scores else "no videos",
            expected="score files or a results.json, or --weights with --val_dataset",
        )
    if args.val_dataset and args.weights is None:
        raise UserError("--val_dataset", got="no --weights", expected="the weights that score it")
    if args.weights is not None and args.weights.suffix != ".onnx":
        look_at(args.weights)
    elif args.weights is not None and (args.val_dataset or not args.weights.is_file()):
        raise UserError(
            f"--weights {args.weights}",
            got="an ONNX file to score with" if args.val_dataset else "no such file",
            expected="its scores as files",
        )


def _read(args: argparse.Namespace) -> ValScores:
    from effort_finetune.evaluate.val_scores import joined, of_file

    given = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    columns = {name: value or name for name, value in given.items()} if any(given.values()) else None
    return joined([of_file(path, columns) for path in args.scores])


def _scored(args: argparse.Namespace, context: Context) -> ValScores:
    host, settings = open_run(args, context, mode="test", val_dataset=args.val_dataset)
    for note in refuse_missing(host, settings, which=("val_dataset",), weights=[args.weights]):
        print(note)

    from effort_finetune.evaluate.val_scoring import score_val

    return score_val(settings, host, args.weights)


def _say(found: StoredCalibration) -> None:
    print(f"temperature {found.temperature:.4f}, bias {found.bias:+.4f}")
    for name, before in found.before.items():
        after = found.after[name]
        text = "-" if after is None else f"{after:.4f}"
        print(f"{name}: {before:.4f} raw, {text} calibrated (of videos left out of the fit in turn)")
    for name, value in found.thresholds.items():
        if value is None:
            print(f"threshold {name}: -")
            continue
        error = found.val_errors[name]
        low, high = error["fpr_interval"]
        print(
            f"threshold {name}: {value:.4f}; of these videos FPR {error['fpr']:.4f} [{low:.3f}, {high:.3f}], "
            f"FNR {error['fnr']:.4f}"
        )
    if found.unsure is not None:
        print(f"unsure between {found.unsure[0]:.4f} and {found.unsure[1]:.4f}, error rate {found.error:g}")
    if found.features is not None:
        print(f"features of {found.features['videos']} videos: a file farther than 95 % of them is unsure")
    for warning in found.warnings:
        print(f"warning: {warning}")
