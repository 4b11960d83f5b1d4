"""How right the verdicts are that are left when unsure ones are set apart, in and out of domain.

python -m benchmarks.risk_coverage --weights FILE --name "demo tower" --data FOLDER --val DemoA DemoB
    --test DemoA DemoB DemoC

FOLDER holds ``lmdb`` and ``json``. One frame of each video is judged by ``predict`` with its stability. Two
tables. The product's own rule, each reason alone and all together: share of the verdicts that are left, and
how many of these are right. The area under the risk-coverage curve, when files are left out by one signal:
distance of the calibrated log-odds to the threshold, stability, distance to the validation set, and all
together (the least of the three, each as its rank among the validation frames). Nothing is chosen on test.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from effort_finetune.config import Settings
from effort_finetune.core.files import write_json
from effort_finetune.core.progress import track
from effort_finetune.evaluate.intervals import clopper_pearson
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.prediction import Predictor, load_predictor
from effort_finetune.predict.verdicts import STEADY

RESULTS = Path(__file__).parent / "results" / "risk_coverage.json"
SIGNALS = ("score", "stability", "distance")
#: How a reason begins, by the signal it comes from.
REASONS = {"score": "near the threshold", "stability": "flips", "distance": "far from the validation set"}


def write_frames(data: Path, dataset: str, split: str, folder: Path, *, videos: int | None) -> list[Path]:
    """Writes the first frame of each video of a split as ``real/VIDEO.png`` or ``fake/VIDEO.png``."""
    index = json.loads((data / "json" / f"{dataset}.json").read_text(encoding="utf-8"))[dataset]
    written = []
    environment = lmdb.open(str(data / "lmdb" / f"{dataset}_lmdb"), readonly=True, lock=False)
    with environment.begin() as transaction:
        for label in ("Real", "Fake"):
            place = folder / dataset / split / label.lower()
            place.mkdir(parents=True)
            for video, entry in list(index[f"{dataset}_{label}"][split].items())[:videos]:
                file = place / f"{video}.png"
                file.write_bytes(transaction.get(entry["frames"][0].replace("/", "\\").encode()))
                written.append(file)
    environment.close()
    return written


def signals(records: Sequence[FileRecord], predictor: Predictor) -> dict[str, np.ndarray]:
    """Returns by signal how much it trusts each verdict, ``float64[N]``: larger is surer."""
    rule = predictor.rule
    odds = np.array([_log_odds(rule.decided(record.score or 0.0)) for record in records])
    return {
        "score": np.abs(odds - _log_odds(rule.threshold)),
        "stability": np.array([record.stability.same if record.stability else 0.0 for record in records]),
        "distance": -np.array([record.faces[0].distance for record in records], dtype=np.float64),
    }


def _log_odds(prob: float) -> float:
    inside = min(max(prob, 1e-12), 1 - 1e-12)
    return float(np.log(inside / (1 - inside)))


def ranked(found: Mapping[str, np.ndarray], val: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the least of the signals, each as the share of validation frames that it is not surer of."""
    ranks = [
        np.searchsorted(np.sort(val[name]), found[name], side="right") / len(val[name]) for name in SIGNALS
    ]
    return np.min(ranks, axis=0)


def area(trust: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017): mean risk over all coverages.

    Ties are left out together: each counts with the mean of its group.
    """
    order = np.argsort(-trust, kind="stable")
    value, errors = trust[order], wrong[order].astype(np.float64)
    _, group = np.unique(-value, return_inverse=True)
    errors = (np.bincount(group, errors) / np.bincount(group))[group]
    return float(np.mean(np.cumsum(errors) / np.arange(1, len(errors) + 1)))


def left(records: Sequence[FileRecord], right: np.ndarray, reasons: Sequence[str]) -> dict[str, Any]:
    """Returns share and rightness of the verdicts that no such reason makes unsure."""
    kept = np.array(
        [not any(line.startswith(REASONS[name]) for name in reasons for line in r.reasons) for r in records]
    )
    hits = right[kept]
    return {
        "coverage": round(float(kept.mean()), 4),
        "right": round(float(hits.mean()), 4) if len(hits) else None,
        "interval": [round(v, 4) for v in clopper_pearson(float(hits.mean()), len(hits))]
        if len(hits)
        else None,
        "files": int(kept.sum()),
    }


def _interval(hits: np.ndarray) -> list[float] | None:
    if not len(hits):
        return None
    return [round(float(end), 4) for end in clopper_pearson(float(hits.mean()), len(hits))]


def measure(
    records: Sequence[FileRecord], label: np.ndarray, predictor: Predictor, val: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns both tables of one dataset."""
    says = np.array([predictor.rule.says_fake(record.score or 0.0) for record in records])
    right = says == label
    found = signals(records, predictor)
    trust = {**found, "together": ranked(found, val)}
    rules = {"none": (), **{name: (name,) for name in SIGNALS}, "together": SIGNALS}
    return {
        "files": len(records),
        "rule": {name: left(records, right, reasons) for name, reasons in rules.items()},
        "aurc": {name: round(area(values, ~right), 4) for name, values in trust.items()},
    }


def judged(predictor: Predictor, files: Sequence[Path]) -> tuple[list[FileRecord], np.ndarray]:
    """Returns the records of files and whether each is fake."""
    names = [str(file) for file in files]
    records = list(
        track(predictor.records(names, stability=True), desc="files", total=len(names), unit="file")
    )
    return records, np.array([file.parent.name == "fake" for file in files])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="calibrated by calibrate --val_dataset")
    parser.add_argument("--name", required=True, help="of the tower, in the table")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val", nargs="+", required=True, help="datasets that the calibration is of")
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--videos", type=int, help="of a class at most (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> int:
    """Measures one tower and prints its tables."""
    args = _arguments()
    settings = Settings(device=args.device, precision="float32", test_batchSize=16)
    predictor = load_predictor(args.weights, settings, faces="cropped")
    results = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    tower: dict[str, Any] = {
        "threshold": predictor.rule.source,
        "steady": STEADY,
        "val": args.val,
        "test": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = [
            file
            for name in args.val
            for file in write_frames(args.data, name, "val", folder, videos=args.videos)
        ]
        val = signals(judged(predictor, files)[0], predictor)
        for name in args.test:
            files = write_frames(args.data, name, "test", folder, videos=args.videos)
            tower["test"][name] = measure(*judged(predictor, files), predictor, val)
    results[args.name] = tower
    write_json(args.output, results)
    for name, block in tower["test"].items():
        print(f"{args.name}, {name}, {block['files']} files")
        for reason, row in block["rule"].items():
            words = "-" if row["right"] is None else f"{row['right']:.3f} {row['interval']}"
            print(f"  unsure by {reason:10s} leaves {row['coverage']:.2f}, right {words}")
        print("  AURC", ", ".join(f"{signal} {value:.3f}" for signal, value in block["aurc"].items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
