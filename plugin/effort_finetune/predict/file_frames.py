"""The frames of one file, whatever it is called and whatever it holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.data.containers import describe_container
from effort_finetune.data.decode import read_picture
from effort_finetune.data.folder_listing import VIDEO_SUFFIXES
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.several_pictures import Frame, holds_several, read_several
from effort_finetune.data.videos import frame_numbers, read_frames
from effort_finetune.data.walk import IMAGE_SUFFIXES


class FileFrames:
    """Reads a file as a picture or a video, decided by its content where the suffix is wrong.

    Attributes:
        kind: ``picture``, also of several pages, or ``video``; set when the first frame is there.
    """

    def __init__(self, file: str, *, count: int) -> None:
        self.path = Path(file)
        self.count = count
        self.kind: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Yields number and ``uint8[H, W, 3]``, RGB, or the reason why a frame cannot be decoded.

        Raises:
            Unreadable: It is neither a picture nor a video, or a damaged one.
        """
        first: Unreadable | None = None
        for kind in self._order():
            try:
                if kind == "picture":
                    frames: Iterator[Frame] = iter([(0, read_picture(self.path))])
                elif kind in ("animation", "pages"):
                    frames = read_several(self.path, partial(frame_numbers, count=self.count))
                else:
                    frames = read_frames(self.path, count=self.count)
                start = next(frames)
            except (Unreadable, UserError, OSError, StopIteration) as error:
                first = first or Unreadable(_reason(error, self.path))
                continue
            following = next(frames, None)
            # An animation of one frame is a picture; a film of one frame is still a film.
            moves = kind == "video" or (kind == "animation" and following is not None)
            self.kind = "video" if moves else "picture"
            yield start
            if following is not None:
                yield following
                yield from frames
            return
        assert first is not None
        raise first

    def _order(self) -> tuple[str, ...]:
        try:
            found = os.stat(self.path)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("no regular file")
            if not found.st_size:
                raise Unreadable("empty file")
            container, _ = describe_container(self.path)
        except (OSError, ValueError) as error:
            raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
        suffix = self.path.suffix.lower()
        if several := holds_several(self.path):
            return (several,)
        if suffix in IMAGE_SUFFIXES:
            return ("picture", "video") if container is not None else ("picture",)
        if container is not None:
            return "video", "picture"
        return ("picture", "video") if suffix in VIDEO_SUFFIXES else ("picture",)


def _reason(error: BaseException, path: Path) -> str:
    if isinstance(error, UserError):
        what = error.what.removeprefix(f"video {visible(path)}: ")  # the record names its file
        return f"{what}: {error.got}" if error.got is not None else what
    return str(error) or type(error).__name__
