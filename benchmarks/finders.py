"""Face finders beside each other: processor time a frame, and how many faces each finds, on turned photos.

    python benchmarks/finders.py                 # every finder that is installed
    python benchmarks/finders.py --frames 4 --repeats 1   # does it run?

The frames are one photo (scikit-image's astronaut), turned and scaled: rates of one face say how finders
compare on it, not how they do on yours. Only the ratios travel from one machine to another.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
from skimage import data
from timing import interleaved

from effort_finetune.core.errors import UserError
from effort_finetune.data.face_finder import FaceFinder
from effort_finetune.data.faces import crop_faces
from effort_finetune.data.finder_choice import choose_finder

NAMES = ("dlib81", "dlib68", "mtcnn")
SIDE = 320  # pixels of a frame
FACE = (223, 118)  # middle of the astronaut's face
TURN, SCALE = 20.0, (0.7, 1.1)  # degrees to either side, and scale, drawn evenly


def frames(count: int) -> list[np.ndarray]:
    """The photo turned and scaled about the face, ``uint8[320, 320, 3]`` each, the same on every machine."""
    photo, rng = data.astronaut(), np.random.default_rng(0)
    made = []
    for _ in range(count):
        turn = cv2.getRotationMatrix2D(FACE, rng.uniform(-TURN, TURN), rng.uniform(*SCALE))
        turn[:, 2] += np.array([SIDE / 2, SIDE / 2]) - FACE
        made.append(cv2.warpAffine(photo, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT))
    return made


def installed() -> dict[str, FaceFinder]:
    """The finders that are there."""
    found = {}
    for name in NAMES:
        try:
            found[name] = choose_finder(name).make()
        except UserError as error:
            print(f"{name}: not measured, {error.got or error.what}")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Prints a row for each finder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(words)
    cv2.setNumThreads(1)
    pictures, finders = frames(options.frames), installed()
    work: dict[str, Callable[[], object]] = {
        name: partial(crop_faces, pictures, finder) for name, finder in finders.items()
    }
    measured = interleaved(work, repeats=options.repeats, clock="cpu")
    slowest = max(row["median_s"] for row in measured.values())
    print(f"{'finder':<8}{'crops':>8}{'crops per CPU second':>24}{'times the slowest':>20}")
    for name, finder in finders.items():
        crops = sum(bool(frame.crops) for frame in crop_faces(pictures, finder))
        seconds = measured[name]["median_s"]
        print(
            f"{name:<8}{crops:>5}/{len(pictures)}{len(pictures) / seconds:>23.1f}{slowest / seconds:>20.2f}"
        )


if __name__ == "__main__":
    main()
