"""Whether ``check-data`` finds containers that tell the classes, and accuses no set whose containers do not.

python -m benchmarks.confounds --data FOLDER --names DemoA DemoB DemoC [--photos FOLDER]

FOLDER holds ``lmdb`` and ``json``; rows of other sources stay in the results. Of each dataset of the index
(and of loose photographs, cut in two at random): *clean* sets, as they are, and one class of them cut in two
at random by video; *mixed* ones, where each video has a format, size and quality of its own that its class
did not choose; and *planted* ones, in which both classes are saved again in two ways. Four kinds, five
strengths each; a share of .6 means that only so many fakes are saved in the other way, which alone allows no
AUC above .8.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from effort_finetune.config import Settings
from effort_finetune.core.files import write_json
from effort_finetune.core.progress import track
from effort_finetune.data.check import check_dataset
from effort_finetune.data.confounds import ConfoundScore, chosen_pictures, container_score
from effort_finetune.host import locate, open_host

RESULTS = Path(__file__).parent / "results" / "confounds.json"
HALVES, MIXED = 5, 5  # sets of each source
QUALITY, WEBP_QUALITY = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_WEBP_QUALITY


@dataclass(frozen=True)
class Picture:
    """An encoded picture, the video it is of, and whether it is fake."""

    data: bytes
    video: str
    fake: bool


@dataclass(frozen=True)
class Way:
    """How a picture is saved: suffix, quality, and the factors of its width and height.

    ``spread`` is the standard deviation of the quality, or of the factors in hundredths, from video to video.
    """

    suffix: str = ".jpg"
    quality: int = 95
    width: float = 1.0
    height: float = 1.0
    spread: float = 0.0

    def save(self, image: np.ndarray, draw: random.Random) -> bytes:
        """The encoded picture; ``draw`` is the video's own."""
        quality, shift = self.quality, draw.gauss(0, self.spread)
        factors = [self.width, self.height]
        if self.spread and (self.width, self.height) == (1.0, 1.0):
            quality = round(min(max(quality + shift, 5), 100))
        elif self.spread:
            factors[0] += shift / 100
            factors[1] += shift / 100 if self.width == self.height else 0.0
        size = [max(8, round(side * f)) for side, f in zip(image.shape[1::-1], factors, strict=True)]
        if size != [image.shape[1], image.shape[0]]:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return encode(image, self.suffix, quality)


#: By kind: name, how reals are saved, how fakes are, and the share of fakes that are.
PLANTS: Mapping[str, Sequence[tuple[str, Way, Way, float]]] = {
    "format": [
        ("JPEG against PNG", Way(), Way(".png"), 1.0),
        ("PNG against JPEG", Way(".png"), Way(), 1.0),
        ("JPEG against WebP", Way(), Way(".webp"), 1.0),
        ("JPEG against .8 PNG", Way(), Way(".png"), 0.8),
        ("JPEG against .6 PNG", Way(), Way(".png"), 0.6),
    ],
    "quality": [
        ("95 against 75", Way(), Way(quality=75), 1.0),
        ("95 against 92", Way(), Way(quality=92), 1.0),
        ("95 against 96", Way(), Way(quality=96), 1.0),
        ("90 against 82, sd 4 each", Way(quality=90, spread=4), Way(quality=82, spread=4), 1.0),
        ("95 against .6 of 75", Way(), Way(quality=75), 0.6),
    ],
    "size": [
        ("1 against 2", Way(), Way(width=2.0, height=2.0), 1.0),
        ("1 against .97", Way(), Way(width=0.97, height=0.97), 1.0),
        ("PNG, 1 against .875", Way(".png"), Way(".png", width=0.875, height=0.875), 1.0),
        (
            "any of .8 to 1.2 against 1",
            Way(width=1.01, height=1.01, spread=10),
            Way(),
            1.0,
        ),
        ("1 against .6 of .875", Way(), Way(width=0.875, height=0.875), 0.6),
    ],
    "aspect": [
        ("1:1 against 4:3", Way(), Way(width=4 / 3), 1.0),
        ("1:1 against 1:1.03", Way(), Way(width=0.97), 1.0),
        ("wide against high", Way(width=0.75), Way(height=0.75), 1.0),
        ("wide or high by 10 %, sd 10 %", Way(width=0.9, spread=10), Way(width=1.1, spread=10), 1.0),
        ("1:1 against .6 of 4:3", Way(), Way(width=4 / 3), 0.6),
    ],
}


def encode(image: np.ndarray, suffix: str, quality: int) -> bytes:
    """Encodes ``uint8[H, W, 3]``."""
    options = {".jpg": [QUALITY, quality], ".webp": [WEBP_QUALITY, quality]}.get(suffix, [])
    return bytes(cv2.imencode(suffix, image, options)[1])


def saved(picture: Picture, real: Way, fake: Way, share: float, seed: int) -> bytes:
    """The picture as its class is saved; all pictures of a video in one way."""
    draw = random.Random(f"{seed} {picture.video}")
    way = fake if picture.fake and draw.random() < share else real
    return way.save(_decoded(picture), draw)


def mixed(picture: Picture, seed: int) -> bytes:
    """The picture in a format, size and quality that its video drew, whatever its class."""
    draw = random.Random(f"{seed} mixed {picture.video}")
    side = draw.choice([0.5, 0.75, 1.0, 1.25])
    way = Way(draw.choice([".jpg", ".png", ".webp"]), draw.randint(60, 98), side, side * draw.uniform(0.8, 1))
    return way.save(_decoded(picture), draw)


def _decoded(picture: Picture) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def halves(pictures: Sequence[Picture], seed: int) -> list[Picture]:
    """One class cut in two at random by video; reals for an even seed."""
    own = [picture for picture in pictures if picture.fake == bool(seed % 2)] or list(pictures)
    return cut_in_two(own, seed)


def cut_in_two(pictures: Sequence[Picture], seed: int) -> list[Picture]:
    """The same pictures, half of the videos called fake."""
    videos = sorted({picture.video for picture in pictures})
    random.Random(f"{seed} halves").shuffle(videos)
    fake = set(videos[: len(videos) // 2])
    return [Picture(p.data, p.video, p.video in fake) for p in pictures]


def read_dataset(data: Path, name: str) -> list[Picture]:
    """All frames of a dataset of the index, the video's name with its class."""
    index = json.loads((data / "json" / f"{name}.json").read_text(encoding="utf-8"))[name]
    found = []
    environment = lmdb.open(str(data / "lmdb" / f"{name}_lmdb"), readonly=True, lock=False)
    with environment.begin() as transaction:
        for label, splits in index.items():
            for split in splits.values():
                for video, entry in split.items():
                    found += [
                        Picture(
                            bytes(transaction.get(frame.replace("/", "\\").encode())),
                            f"{label}/{video}",
                            label.endswith("Fake"),
                        )
                        for frame in entry["frames"]
                    ]
    environment.close()
    return found


def read_photos(folder: Path) -> list[Picture]:
    """All photographs of a folder, none of them fake."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))
    return [Picture(p.read_bytes(), str(p.relative_to(folder)), False) for p in files]


def score_of(pictures: Sequence[Picture], change: Callable[[Picture], bytes], seed: int) -> ConfoundScore:
    """The score of pictures as ``change`` saves them."""
    labels, videos = [int(p.fake) for p in pictures], [p.video for p in pictures]
    return container_score(lambda place: change(pictures[place]), labels, videos, seed=seed)


def folder_score(pictures: Sequence[Picture], change: Callable[[Picture], bytes], seed: int) -> ConfoundScore:
    """The same by the command's own way, from a folder on the disk."""
    drawn = chosen_pictures([int(p.fake) for p in pictures], [p.video for p in pictures], seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        for place in drawn:
            picture = pictures[place]
            data = change(picture)
            name = f"{zlib.crc32(picture.video.encode()):08x}_{place}{_suffix(data)}"
            file = Path(scratch, "fake" if picture.fake else "real", name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        report = check_dataset(
            open_host(locate()), Settings(manualSeed=seed, folder_samples="stills"), scratch
        )
    found = any(finding.kind == "container_confound" for finding in report.findings)
    score = ConfoundScore(**report.confounds["container"])
    assert found == score.warns
    return score


def _suffix(data: bytes) -> str:
    return {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}[data[:2]]


def rows(source: str, pictures: Sequence[Picture], *, photos: bool) -> Iterator[dict[str, Any]]:
    """Measures all sets of one source."""
    score = folder_score if photos else score_of

    def row(kind: str, name: str, seed: int, found: ConfoundScore) -> dict[str, Any]:
        values = [None if v is None else round(v, 4) for v in (found.auc, found.low, found.high)]
        return {
            "source": source, "kind": kind, "set": name, "seed": seed, "auc": values[0],
            "interval": values[1:], "strongest": found.strongest and found.strongest[0],
            "pictures": found.pictures, "warns": found.warns,
        }  # fmt: skip

    as_it_is = attrgetter("data")
    if not photos:
        yield row("clean", "as it is", 0, score(pictures, as_it_is, 0))
    for seed in range(HALVES):
        yield row("clean", "one class cut in two", seed, score(halves(pictures, seed), as_it_is, seed))
    for seed in range(MIXED):
        own = cut_in_two(pictures, seed) if photos else pictures
        yield row("mixed", "any format, size and quality", seed, score(own, partial(mixed, seed=seed), seed))
    own = cut_in_two(pictures, 0) if photos else pictures
    for kind, plants in PLANTS.items():
        for seed, (name, real, fake, share) in enumerate(plants):
            change = partial(saved, real=real, fake=fake, share=share, seed=seed)
            yield row(kind, name, seed, score(own, change, seed))


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By source and kind ``warned/sets``."""
    table: dict[str, dict[str, list[bool]]] = {}
    for row in found:
        table.setdefault(row["source"], {}).setdefault(row["kind"], []).append(row["warns"])
    return {
        source: {kind: f"{sum(warned)}/{len(warned)}" for kind, warned in kinds.items()}
        for source, kinds in table.items()
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder that holds lmdb and json")
    parser.add_argument("--names", nargs="*", default=[], help="datasets of the index")
    parser.add_argument("--photos", type=Path, help="a folder of real photographs")
    parser.add_argument("--photos_are", default="photographs", help="what they are, for the table")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> int:
    """Measures all sources and prints what was found and what was accused."""
    args = _arguments()
    sources = [(name, read_dataset(args.data, name), False) for name in args.names]
    if args.photos:
        sources.append((args.photos_are, read_photos(args.photos), True))
    found = json.loads(args.output.read_text(encoding="utf-8"))["sets"] if args.output.is_file() else []
    for source, pictures, photos in sources:
        found = [row for row in found if row["source"] != source]
        found += track(rows(source, pictures, photos=photos), desc=source, unit="set")
        write_json(args.output, {"warned": summary(found), "sets": found})
    for source, kinds in summary(found).items():
        print(f"{source}: " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
