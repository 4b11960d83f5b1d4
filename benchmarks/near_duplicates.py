"""How far apart the looks of different persons are, and which copies of a picture are found.

python -m benchmarks.near_duplicates NAME=FOLDER [NAME=FOLDER ...]

A folder holds one folder of pictures a person; a loose picture is a person of its own. Two counts of
each folder: pairs of different persons that ``check-data`` would call near-duplicates, as they are
and mirrored, which should be none; and the share of pictures that are near to themselves after a change.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from effort_finetune.core.files import write_json
from effort_finetune.core.progress import track
from effort_finetune.data.decode import decode
from effort_finetune.data.perceptual_hash import NEAR, distance, look_of, mirrored, near_pairs
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.walk import below

RESULTS = Path(__file__).parent / "results" / "near_duplicates.json"
COPIES = 200  # pictures that are changed, evenly over the folder
Change = Callable[[np.ndarray], np.ndarray]


def _jpeg(quality: int) -> Change:
    def saved(image: np.ndarray) -> np.ndarray:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        return grey

    return saved


def _scaled(width: float, height: float) -> Change:
    return lambda image: cv2.resize(image, None, fx=width, fy=height, interpolation=cv2.INTER_AREA)


def _cut(share: float) -> Change:
    def cut(image: np.ndarray) -> np.ndarray:
        top, left = (round(side * share) for side in image.shape[:2])
        return image[top : image.shape[0] - top, left : image.shape[1] - left]

    return cut


def _turned(degrees: float) -> Change:
    def turned(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        return cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)

    return turned


CHANGES: Mapping[str, Change] = {
    "JPEG 90": _jpeg(90),
    "JPEG 50": _jpeg(50),
    "JPEG 30": _jpeg(30),
    "JPEG 10": _jpeg(10),
    "half the size": _scaled(0.5, 0.5),
    "half the size, JPEG 50": lambda image: _jpeg(50)(_scaled(0.5, 0.5)(image)),
    "twice the size": _scaled(2, 2),
    "1.2 times as wide": _scaled(1.2, 1),
    "brighter by 30": lambda image: cv2.convertScaleAbs(image, alpha=1, beta=30),
    "contrast times 1.3": lambda image: cv2.convertScaleAbs(image, alpha=1.3, beta=0),
    "blurred, sigma 2": lambda image: cv2.GaussianBlur(image, (0, 0), 2),
    "mirrored": lambda image: cv2.flip(image, 1),
    "mirrored, JPEG 50": lambda image: _jpeg(50)(cv2.flip(image, 1)),
    "turned by 1 degree": _turned(1),
    "1 % cut off each side": _cut(0.01),
    "5 % cut off each side": _cut(0.05),
}


def read(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    """All pictures of a folder that can be read, grey ``uint8[H, W]``, and whose they are."""
    pictures, persons = [], []
    for path in below(folder):
        try:
            image = decode(path.read_bytes()) if path.is_file() else None
        except Unreadable:
            continue
        if image is not None:
            pictures.append(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
            persons.append(str(path.parent if path.parent != folder else path))
    return pictures, persons


def apart(looks: Sequence[bytes | None], persons: Sequence[str]) -> dict[str, Any]:
    """Pairs of different persons: their number, how near they come, and how many are accused."""
    known = [(look, person) for look, person in zip(looks, persons, strict=True) if look is not None]
    bits = np.array([np.unpackbits(np.frombuffer(look, np.uint8)) for look, _ in known], np.int16)
    mirror = np.array([np.unpackbits(np.frombuffer(mirrored(look), np.uint8)) for look, _ in known], np.int16)
    names = np.array([person for _, person in known])
    nearest, pairs = len(bits[0]), 0
    for place in range(len(names)):
        other = names[place + 1 :] != names[place]
        pairs += int(other.sum())
        for table in (bits, mirror):
            far = np.abs(table[place + 1 :][other] - bits[place]).sum(1)
            nearest = min(nearest, int(far.min(initial=nearest)))
    accused = sum(names[a] != names[b] for a, b in near_pairs([look for look, _ in known]))
    return {
        "pictures": len(known), "persons": len(set(names)), "pairs of different persons": pairs,
        "nearest pair, bits": nearest, "accused": int(accused),
    }  # fmt: skip


def copies(pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """By change the share of pictures that are near to themselves as they were."""
    some = pictures[:: max(1, len(pictures) // COPIES)]
    found = {}
    for name, change in CHANGES.items():
        pairs = [(look_of(image), look_of(change(image))) for image in some]
        hits = [min(distance(a, b), distance(mirrored(a), b)) <= NEAR for a, b in pairs if a and b]
        found[name] = round(sum(hits) / len(some), 4)
    return found


def main() -> int:
    """Measures each folder and prints both counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    results = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    for name, _, folder in track([text.partition("=") for text in args.folders], desc="folders"):
        pictures, persons = read(Path(folder))
        looks = [look_of(picture) for picture in pictures]
        results[name] = {**apart(looks, persons), "copies found": copies(pictures)}
        write_json(args.output, results)
        print(name, results[name])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
