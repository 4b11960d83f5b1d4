"""How often the peak of a heat map lies in the forged region (pointing game), by method, tower and forgery.

python -m benchmarks.pointing --weights FILE --name "demo tower" --dataset DemoB --data FOLDER

FOLDER holds ``lmdb`` and ``json`` of ``examples.demo.build_demo``, whose LMDBs keep the masks; people that
the weights were trained on do not belong in it. Every second forged video chooses the method, the others
report it. A hit is a peak on a pixel that the mask gives at least half to the forgery; zeros are none.

Three numbers stand beside the hits. ``chance`` is the masks' mean share of the crop. ``fixed_place`` is the
one place that most masks of the choosing half hold: faces are aligned and a forgery of one family lies at one
place, so that a map may hit without having looked. ``reals`` are peaks of the real twins' maps in the same
masks: what a method hits there it does not hit because of the forgery. The method of a tower is the one that
hits most fakes beyond its hits on their real twins, by the choosing halves.

Each run adds its block to the result file, and the chosen map of its tower to the package, which shows it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import torch

from effort_finetune.core.files import write_json
from effort_finetune.core.progress import track
from effort_finetune.data.normalisation import normalisation_table, normalise
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.heat_map import METHODS, peak, spread
from effort_finetune.model.load_detector import load_detector
from effort_finetune.model.pointing_figures import FILE, tower_key
from effort_finetune.model.subject import Subject

RESULTS = Path(__file__).parent / "results" / "pointing.json"
SLOW = 16  # forward passes of a crop; dearer methods see fewer fakes where --slow says so
BATCH = 8
RESAMPLES = 2000


@dataclass(frozen=True)
class Fake:
    """One forged frame.

    Attributes:
        video: Name of its video.
        number: Of the video in the order of the index.
        image: ``uint8[side, side, 3]``, RGB.
        mask: ``bool[side, side]``, where it is forged.
        twin: Like ``image``, the frame of the same number of the real video that was forged.
    """

    video: str
    number: int
    image: np.ndarray
    mask: np.ndarray
    twin: np.ndarray


def forged_frames(data: Path, dataset: str, *, side: int, frames: int, videos: int | None) -> list[Fake]:
    """Reads forged test frames with their masks.

    Args:
        data: ``lmdb`` and ``json`` lie in it.
        dataset: Name of the index.
        side: Of the tower's input, in pixels.
        frames: Of a video at most, evenly spaced.
        videos: At most; None for all.
    """
    index = json.loads((data / "json" / f"{dataset}.json").read_text(encoding="utf-8"))
    listed, reals = (index[dataset][f"{dataset}_{label}"]["test"] for label in ("Fake", "Real"))
    twins = list(reals.values())
    fakes = []
    environment = lmdb.open(str(data / "lmdb" / f"{dataset}_lmdb"), readonly=True, lock=False)
    with environment.begin() as transaction:
        for number, (video, entry) in enumerate(list(listed.items())[:videos]):
            keys = entry["frames"][:: max(1, len(entry["frames"]) // frames)][:frames]
            for key in keys:
                real = twins[number]["frames"][entry["frames"].index(key)]
                name = key.replace("/", "\\")
                image = _decode(transaction.get(name.encode()), cv2.IMREAD_COLOR, side)[..., ::-1]
                mask = name.replace("\\frames\\", "\\masks\\")
                drawn = _decode(transaction.get(mask.encode()), cv2.IMREAD_GRAYSCALE, side)
                twin = transaction.get(real.replace("/", "\\").encode())
                same = np.ascontiguousarray(_decode(twin, cv2.IMREAD_COLOR, side)[..., ::-1])
                fakes.append(Fake(video, number, np.ascontiguousarray(image), drawn > 127, same))
    environment.close()
    return fakes


def _decode(data: bytes, mode: int, side: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    assert image is not None, "the demo's PNGs can be read"
    way = cv2.INTER_CUBIC if mode == cv2.IMREAD_COLOR else cv2.INTER_LINEAR
    return image if image.shape[0] == side else cv2.resize(image, (side, side), interpolation=way)


def measure(
    detector: EffortFinetuneDetector,
    fakes: Sequence[Fake],
    methods: Sequence[str],
    *,
    slow: int | None,
    twins: bool = False,
) -> dict[str, np.ndarray]:
    """Returns by method whether each mask was hit, ``float64[N]``; NaN where a slow method did not look.

    Args:
        detector: In evaluation mode.
        fakes: What it looks at.
        methods: Of the table.
        slow: How many reporting fakes dear methods see; None: all.
        twins: Look at the real twins instead.
    """
    table = normalisation_table(detector.settings.mean, detector.settings.std)
    hits = {name: np.full(len(fakes), np.nan) for name in methods}
    hits["called_fake"] = np.full(len(fakes), np.nan)
    # Slow methods look at reporting videos alone.
    few = [i for i, fake in enumerate(fakes) if fake.number % 2][:slow]
    for start in track(range(0, len(fakes), BATCH), desc="heat maps", unit="batch"):
        part = fakes[start : start + BATCH]
        images = torch.stack([normalise(fake.twin if twins else fake.image, table) for fake in part])
        images = images.to(next(detector.parameters()).device)
        subject = Subject(detector, images)
        hits["called_fake"][start : start + len(part)] = (subject.traced.log_odds > 0).cpu().numpy()
        for name in methods:
            looked = list(range(len(part)))
            of = subject
            if METHODS[name].passes > SLOW:
                looked = [i for i in looked if start + i in few]
                of = Subject(detector, images[looked])
            if not looked:
                continue
            for i, heat in zip(looked, spread(METHODS[name].of(of), images.shape[-1]), strict=True):
                place = peak(heat)
                hits[name][start + i] = place is not None and bool(part[i].mask[place])
    return hits


def share(hits: np.ndarray, fakes: Sequence[Fake], half: int) -> dict[str, Any] | None:
    """Returns the hits of a half with a 95 % interval over its videos (percentile bootstrap)."""
    videos: dict[int, list[float]] = {}
    for hit, fake in zip(hits, fakes, strict=True):
        if fake.number % 2 == half and not np.isnan(hit):
            videos.setdefault(fake.number, []).append(hit)
    if not videos:
        return None
    sums = np.array([sum(found) for found in videos.values()])
    counts = np.array([len(found) for found in videos.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return {
        "share": round(float(sums.sum() / counts.sum()), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "fakes": int(counts.sum()),
        "videos": len(sums),
    }


def fixed_place(fakes: Sequence[Fake]) -> np.ndarray:
    """Returns whether each mask holds the one place that most masks of the choosing half hold."""
    known = np.mean([fake.mask for fake in fakes if fake.number % 2 == 0], axis=0)
    place = np.unravel_index(int(known.argmax()), known.shape)
    return np.array([float(fake.mask[place]) for fake in fakes])


def block(
    fakes: Sequence[Fake], hits: Mapping[str, np.ndarray], reals: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns the table of one tower and dataset."""
    chance = np.array([fake.mask.mean() for fake in fakes])
    table = {
        name: {
            "choose": share(found, fakes, 0),
            "report": share(found, fakes, 1),
            "reals": share(reals[name], fakes, 1) if name in reals else None,
            "choose_reals": share(reals[name], fakes, 0) if name in reals else None,
        }
        for name, found in hits.items()
        if name != "called_fake"
    }
    return {
        "chance": share(chance, fakes, 1),
        "fixed_place": share(fixed_place(fakes), fakes, 1),
        "called_fake": share(hits["called_fake"], fakes, 1),
        "methods": table,
    }


def choose(blocks: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns the method that hits most fakes beyond what it hits on their real twins.

    The mean over a tower's datasets, on the choosing halves; a method that was not measured on both is out.
    """
    means = {}
    for name in METHODS:
        found = [one["methods"].get(name) for one in blocks.values()]
        if found and all(one and one["choose"] and one.get("choose_reals") for one in found):
            beyond = [one["choose"]["share"] - one["choose_reals"]["share"] for one in found if one]
            means[name] = float(np.mean(beyond))
    return max(means, key=lambda name: means[name]) if means else None


def figures(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields what the package keeps: each tower's chosen method with its reported figures."""
    for name, tower in results["towers"].items():
        chosen = tower["chosen"]
        if chosen is None:
            continue
        yield {
            "tower": tower["key"],
            "name": name,
            "method": chosen,
            "measured": {
                dataset: {
                    **one["methods"][chosen]["report"],
                    "chance": one["chance"]["share"],
                    "reals": (one["methods"][chosen]["reals"] or {}).get("share"),
                }
                for dataset, one in tower["datasets"].items()
            },
        }


def add(results: dict[str, Any], name: str, detector: Any, dataset: str, found: dict[str, Any]) -> None:
    """Puts a block into the results and chooses anew."""
    towers = results.setdefault("towers", {})
    key = tower_key(detector)
    tower = towers.setdefault(name, {"key": key, "datasets": {}})
    tower["key"] = key
    earlier = tower["datasets"].get(dataset, {}).get("methods", {})
    tower["datasets"][dataset] = {**found, "methods": {**earlier, **found["methods"]}}
    tower["chosen"] = choose(tower["datasets"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the tower, in the table")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=2, help="of a video (default: %(default)s)")
    parser.add_argument("--videos", type=int, help="at most (default: all)")
    parser.add_argument("--slow", type=int, help="reporting fakes that dear methods see (default: all)")
    parser.add_argument("--control", action=argparse.BooleanOptionalAction, default=True, help="reals, too")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> int:
    """Measures one tower on one dataset and prints its table."""
    args = _arguments()
    detector = load_detector(args.weights, device=args.device)
    fakes = forged_frames(
        args.data, args.dataset, side=detector.resolution, frames=args.frames, videos=args.videos
    )
    with detector.merged():
        hits = measure(detector, fakes, args.methods, slow=args.slow)
        cheap = [name for name in args.methods if METHODS[name].passes <= SLOW] if args.control else []
        reals = measure(detector, fakes, cheap, slow=None, twins=True) if cheap else {}
    found = block(fakes, hits, reals)
    results = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    add(results, args.name, detector, args.dataset, found)
    write_json(args.output, results)
    if args.output == RESULTS:
        write_json(FILE, list(figures(results)))
    print(
        f"{args.name}, {args.dataset}: chance {found['chance']['share']:.2f}, "
        f"fixed place {found['fixed_place']['share']:.2f}"
    )
    for name, halves in found["methods"].items():
        words = [
            "-"
            if half is None
            else f"{half['share']:.2f} [{half['interval'][0]:.2f}, {half['interval'][1]:.2f}]"
            for half in (halves["choose"], halves["report"], halves["reals"])
        ]
        print(f"{name:27s} chosen on {words[0]:20s} reported {words[1]:20s} reals {words[2]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
