"""``This is wrong``: a file goes with its right label into a folder that ``--train_dataset`` takes."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import atomic_write, sha256_file
from effort_finetune.core.whole_folder import whole_folder
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.walk import IMAGE_SUFFIXES
from effort_finetune.predict.file_crops import Cutter
from effort_finetune.predict.file_frames import FileFrames
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.page_row import Label

_UNUSUAL = re.compile(r"[^\w.-]+", re.ASCII)


class Corrections:
    """A folder of files that were judged wrongly: ``real/`` and ``fake/``.

    A picture becomes one picture, a video a folder of frames; where the weights look at faces, they are cut
    as the weights' own training data was. So the folder can be trained on as it is.

    Args:
        folder: Where they go; made with the first.
        predictor: Says how files are cut.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self.folder = folder
        self._faces, self._frames = predictor.faces, predictor.settings.frame_num.test
        self._guard = threading.Lock()

    def put(self, file: Path, name: str, label: Label) -> Path:
        """Puts a file under its label, and takes it away from the other one.

        Args:
            file: Its bytes.
            name: What it is called.
            label: What it is.

        Returns:
            The picture, or the folder of frames.

        Raises:
            UserError: If nothing in it can be trained on, or it cannot be written.
        """
        with self._guard:
            try:
                frames = list(self._pictures(file))
            except Unreadable as error:
                raise UserError("this file", got=str(error), expected="a picture or a video") from error
            if not frames:
                raise UserError("this file", got="no picture or face to train on in it")
            self._take_away(key := sha256_file(file)[:16])
            if len(frames) > 1:
                return self._video(self.folder / label / "frames" / key, frames)
            return self._still(self.folder / label, name, key, file, frames[0][1])

    def take_away(self, file: Path) -> None:
        """Takes a file out again."""
        with self._guard:
            self._take_away(sha256_file(file)[:16])

    def _video(self, folder: Path, frames: list[tuple[int, np.ndarray]]) -> Path:
        """Its folder is named by what it holds: a word such as "fake" in a name would tell a class."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as inside:
            for number, image in frames:
                (inside / f"{number:06d}.png").write_bytes(_png(image))
        return folder

    def _still(self, folder: Path, name: str, key: str, file: Path, image: np.ndarray) -> Path:
        stem = f"{_readable(name)}-{key}"
        suffix = Path(name).suffix.lower()
        if self._faces.finder is None and suffix in IMAGE_SUFFIXES:
            return atomic_write(folder / (stem + suffix), lambda made: shutil.copyfile(file, made))
        return atomic_write(folder / f"{stem}.png", lambda made: made.write_bytes(_png(image)))

    def _take_away(self, key: str) -> None:
        for label in ("real", "fake"):
            shutil.rmtree(self.folder / label / "frames" / key, ignore_errors=True)
            for still in (self.folder / label).glob(f"*-{key}.*"):
                still.unlink(missing_ok=True)

    def _pictures(self, file: Path) -> Iterator[tuple[int, np.ndarray]]:
        if self._faces.finder is None:
            yield from (
                (number, frame)
                for number, frame in FileFrames(str(file), count=self._frames)
                if not isinstance(frame, str)
            )
            return
        found = Cutter(self._faces, self._faces.size, self._frames).cut(str(file))
        seen: set[int] = set()
        for cut in found.cuts:  # the largest of a frame comes first
            if cut.frame not in seen:
                seen.add(cut.frame)
                yield cut.frame, cut.image


def _readable(name: str) -> str:
    return _UNUSUAL.sub("_", Path(name).stem).strip("._")[:60] or "file"


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
