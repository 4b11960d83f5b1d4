"""``This is wrong``: a file goes with its right label into a folder that ``--train_dataset`` takes."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import atomic_write, sha256_file
from effort_finetune.core.whole_folder import whole_folder
from effort_finetune.data.walk import IMAGE_SUFFIXES
from effort_finetune.predict.cutting_process import CuttingProcess
from effort_finetune.predict.file_crops import Cutter
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.page_row import Label
from effort_finetune.serve.small_frames import numbered_png, png

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
        self._reader = CuttingProcess()  # not the predictor's, which another thread works with

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
            if not (frames := self._pictures(file)):
                raise UserError("this file", got="no picture or face to train on in it")
            self._take_away(key := sha256_file(file)[:16])
            if len(frames) > 1:
                return self._video(self.folder / label / "frames" / key, frames)
            return self._still(self.folder / label, name, key, file, next(iter(frames.values())))

    def take_away(self, file: Path) -> None:
        """Takes a file out again."""
        with self._guard:
            self._take_away(sha256_file(file)[:16])

    def _video(self, folder: Path, frames: Mapping[int, bytes]) -> Path:
        """Its folder is named by what it holds: a word such as "fake" in a name would tell a class."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as inside:
            for number, picture in frames.items():
                (inside / f"{number:06d}.png").write_bytes(picture)
        return folder

    def _still(self, folder: Path, name: str, key: str, file: Path, picture: bytes) -> Path:
        stem = f"{_readable(name)}-{key}"
        suffix = Path(name).suffix.lower()
        if self._faces.finder is None and suffix in IMAGE_SUFFIXES:
            return atomic_write(folder / (stem + suffix), lambda made: shutil.copyfile(file, made))
        return atomic_write(folder / f"{stem}.png", lambda made: made.write_bytes(picture))

    def _take_away(self, key: str) -> None:
        for label in ("real", "fake"):
            shutil.rmtree(self.folder / label / "frames" / key, ignore_errors=True)
            for still in (self.folder / label).glob(f"*-{key}.*"):
                still.unlink(missing_ok=True)

    def _pictures(self, file: Path) -> dict[int, bytes]:
        """Whole frames, or the largest face of each, as PNG; read in a process of its own."""
        whole: dict[int, bytes] = {}
        cutter = Cutter(self._faces, self._faces.size, self._frames)
        shown = numbered_png if self._faces.finder is None else None
        watch = lambda _, frame: whole.update([frame])  # noqa: E731
        (found,) = self._reader.cut(cutter, [str(file)], shown=shown, watch=watch)
        if found.error is not None:
            raise UserError("this file", got=found.error, expected="a picture or a video")
        if shown is not None:
            return whole
        return {cut.frame: png(cut.image) for cut in reversed(found.cuts)}  # the largest of a frame is first


def _readable(name: str) -> str:
    return _UNUSUAL.sub("_", Path(name).stem).strip("._")[:60] or "file"
