"""Does `why` find what was planted? Pairs of results with two factors changed, one of them not stated.

    effort-finetune evaluate --weights CKPT --test_dataset DemoC --frame_num.test 2 --output_dir base
    python benchmarks/why.py --results base/results.json [--pairs 20] [--checkpoints OTHER]

Of four frames a video two are read, so that their number and their choice are factors, too. An interrupted
run goes on where it was.

Each pair: the given result, and a second one measured here with two factors of :data:`PLANTED` changed. Of
the second only its numbers, rounded to four digits as papers print them, and the first factor are handed on.
Found means: both factors are named, they are the two largest shares, and each share is within .002 of a run
with that factor alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effort_finetune.config import settings_from_config
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import write_json
from effort_finetune.evaluate import results
from effort_finetune.host import locate, open_host
from effort_finetune.studies.difference_factors import FACTORS, Reading, Variant
from effort_finetune.studies.explanation import Explainer
from effort_finetune.studies.scoring_again import ScoringAgain, obeyed

#: Factor and planted value; the metric they are judged by follows.
PLANTED: tuple[tuple[str, Any], ...] = (
    ("frames a video", 1),
    ("frames a video", 4),
    ("frame sampling", "first"),
    ("interpolation", "nearest"),
    ("interpolation", "area"),
    ("mean and std", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    ("mean and std", ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    ("precision", "bfloat16"),
    ("video grouping", "folder"),
    ("video grouping", "frame"),
    ("threshold", 0.3),
)
METRICS = ("video_auc", "video_acc")
STATED = ("video_auc", "video_ap", "video_eer", "video_acc", "video_f1", "frame_auc")
TOLERANCE = 0.002
_FACTOR = {factor.name: factor for factor in FACTORS}
_KEY_OF = {
    "frames a video": "frames_asked",
    "frame sampling": "frame_sampling",
    "precision": "forward_precision",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the pairs and prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--dataset", default="DemoC")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--checkpoints", type=Path, nargs="*", default=[], help="other checkpoints to plant")
    parser.add_argument("--host", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/why.json"))
    args = parser.parse_args(argv)
    document = results.read(args.results)
    weights = Path(document["checkpoint"]["path"])
    settings = obeyed(settings_from_config(document["settings"]).changed(output_dir=None), weights)
    start = Variant(settings, weights, Reading(threshold=document["protocol"]["threshold"]))
    again = ScoringAgain(open_host(locate(args.host)), args.dataset)
    planted = [*PLANTED, *(("checkpoint", str(file)) for file in args.checkpoints)]
    pairs = [p for p in itertools.permutations(planted, 2) if p[0][0] != p[1][0] and _can_be_stated(p[0][0])]
    random.Random(2026).shuffle(pairs)
    scores = document["datasets"][args.dataset]["scores_sha256"]
    about = {"dataset": args.dataset, "scores_sha256": scores, "tolerance": TOLERANCE}
    rows, without = _kept(args.output, about)
    done = {json.dumps([row["stated"], row["hidden"]]) for row in rows} | set(map(json.dumps, without))
    for stated, hidden in pairs:
        if len(rows) == args.pairs:
            break
        if json.dumps([_shown(stated), _shown(hidden)]) in done:
            continue
        row = _pair(document, start, again, args, stated, hidden)
        if row is None:
            without.append([_shown(stated), _shown(hidden)])
        else:
            rows.append(row)
            print(row, flush=True)
        # After every pair: an interrupted run keeps what it measured.
        found = sum(one["found"] for one in rows)
        write_json(args.output, {**about, "found": found, "pairs": rows, "without_effect": without})
    print(f"{sum(row['found'] for row in rows)} of {len(rows)} pairs found")


def _kept(output: Path, about: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Returns the pairs that an earlier run of the same kind left, and those that moved no number."""
    if not output.exists():
        return [], []
    before = json.loads(output.read_text())
    if any(before.get(key) != value for key, value in about.items()):
        raise SystemExit(f"{output} was measured with another result; name another --output")
    return before["pairs"], before["without_effect"]


def _shown(planted: tuple[str, Any]) -> list[Any]:
    name, value = planted
    return [name, Path(value).name if name == "checkpoint" else value]


def _can_be_stated(name: str) -> bool:
    return name in (*_KEY_OF, "threshold", "interpolation", "mean and std")


def _pair(
    document: Any, start: Variant, again: ScoringAgain, args: argparse.Namespace, stated: Any, hidden: Any
) -> dict[str, Any] | None:
    """Plants two factors; ``None`` where one of them moves no metric by more than the tolerance.

    Nor do they count where one of them changes no stated number beside the other: in one frame a video no
    grouping is left, of all frames none are the first.
    """
    first = again(start)
    alone = {name: again(_put(start, name, value)) for name, value in (stated, hidden)}
    second = again(_put(_put(start, *stated), *hidden))
    if any(_stated(second) == _stated(values) for values in alone.values()):
        return None
    for metric in METRICS:
        moves = {name: (values[metric] or 0.0) - (first[metric] or 0.0) for name, values in alone.items()}
        if all(abs(move) > TOLERANCE for move in moves.values()):
            break
    else:
        return None
    published = _published(args.dataset, second, stated, document)
    given = {"checkpoint": [str(file) for file in args.checkpoints]}
    explainer = Explainer((document, published), args.dataset, start, again, candidates=given)
    explained = explainer.explain(metric, unmeasurable=UserError)
    largest = [one.factor for one in explained.shares][:2]
    shares = {one.factor: one.share for one in explained.shares}
    close = all(abs((shares.get(name) or 0.0) - move) <= TOLERANCE for name, move in moves.items())
    return {
        "metric": metric,
        "stated": _shown(stated),
        "hidden": _shown(hidden),
        "alone": moves,
        "shares": shares,
        "gap": explained.gap,
        "remainder": explained.remainder,
        "found": set(largest) == set(moves) and close,
        "notes": list(explained.notes),
    }


def _put(variant: Variant, name: str, value: Any) -> Variant:
    put = _FACTOR[name].put
    assert put is not None
    return put(variant, value)


def _stated(numbers: Any) -> dict[str, float]:
    return {name: round(numbers[name], 4) for name in STATED if numbers[name] is not None}


def _published(dataset: str, numbers: Any, stated: tuple[str, Any], document: Any) -> dict[str, Any]:
    block: dict[str, Any] = {"frame": {}, "video": {}}
    for key, number in _stated(numbers).items():
        level, _, metric = key.partition("_")
        block[level][metric] = number
    name, value = stated
    protocol: dict[str, Any] = {}
    if name == "threshold":
        protocol["threshold"] = value
    elif name == "interpolation":
        protocol["interpolation"] = value
    elif name == "mean and std":
        block["protocol"] = {"mean": list(value[0]), "std": list(value[1])}
    else:
        protocol[_KEY_OF[name]] = value
    return {"datasets": {dataset: block}, "protocol": protocol}


if __name__ == "__main__":
    main()
