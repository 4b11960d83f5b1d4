"""Which face finder a run takes, and what to install for one that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.data import dlib_faces, mtcnn_faces
from effort_finetune.data.face_finder import FaceFinder

#: Finders, the one that is nearest to DeepfakeBench's crops first: the order in which ``auto`` takes them.
FINDERS = ("dlib81", "dlib68", "mtcnn")
WITHOUT = ("cropped", "whole")
FACES = ("auto", *FINDERS, *WITHOUT)


@dataclass(frozen=True)
class FinderChoice:
    """A finder that can be made, in any process.

    Attributes:
        name: One of :data:`FINDERS`.
        predictor: dlib's landmark model; MTCNN's first network, which is found without it.
        why: In what way ``auto`` came to it, or that it was asked for.
    """

    name: str
    predictor: Path
    why: str

    def make(self) -> FaceFinder:
        """The finder, made once per process.

        Raises:
            UserError: Its package or model is missing or spoilt.
        """
        return _made(self.name, self.predictor)


@lru_cache(maxsize=2)
def _made(name: str, predictor: Path) -> FaceFinder:
    if name == "mtcnn":
        return mtcnn_faces.MtcnnFinder()
    finder = dlib_faces.DlibFinder(predictor)
    if finder.name != name:
        raise UserError(
            f"--faces {name}", got=f"a model of {finder.name.removeprefix('dlib')} points: {predictor}",
            expected=f"one of {name.removeprefix('dlib')}", next_step=f"--faces {finder.name}",
        )  # fmt: skip
    return finder


def choose_finder(faces: str, *, predictor: Path | None = None, folders: Sequence[Path] = ()) -> FinderChoice:
    """Finds what ``--faces`` asks for.

    Args:
        faces: ``auto`` or one of :data:`FINDERS`.
        predictor: dlib's landmark model, given by hand; decides ``auto``.
        folders: Where a host keeps the 81-point model (its ``preprocessing/dlib_tools``).

    Raises:
        UserError: It is not there; says what to install.
    """
    if predictor is not None:
        name = dlib_faces.DlibFinder(predictor).name if faces == "auto" else faces
        if name == "mtcnn":
            raise UserError("--predictor", got="a dlib model with --faces mtcnn", next_step="leave one away")
        return FinderChoice(name, predictor, "its model was given")
    if faces != "auto":
        found = _find(faces, folders)
        if found is None:
            raise _not_there(faces, folders)
        return FinderChoice(faces, found, "it was asked for")
    for position, name in enumerate(FINDERS):
        found = _find(name, folders)
        if found is not None:
            better = f"{', '.join(FINDERS[:position])} not there" if position else "DeepfakeBench's own"
            return FinderChoice(name, found, f"the best there is ({better})")
    raise UserError(
        "no face finder is installed",
        expected="dlib with a landmark model, or MTCNN",
        next_step=f"{mtcnn_faces.INSTALL}, or {dlib_faces.INSTALL}; or --faces cropped / whole",
    )


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    """The model's file; None where the finder is not there."""
    if name == "mtcnn":
        networks = mtcnn_faces.model_files()
        return networks[0] if networks else None
    if not dlib_faces.installed():
        return None
    if name == "dlib68":
        return dlib_faces.packaged_68()
    files = [folder / dlib_faces.FILE_81 for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _not_there(name: str, folders: Sequence[Path]) -> UserError:
    if name == "dlib81" and dlib_faces.installed():
        return UserError(
            "--faces dlib81: the 81-point model is not there",
            got=f"no {dlib_faces.FILE_81} in {', '.join(map(str, folders)) or 'any host'}",
            expected="the file that DeepfakeBench's preprocessing/dlib_tools names; no package has it",
            next_step="put it there, give it by --predictor, or use --faces auto",
        )
    step = mtcnn_faces.INSTALL if name == "mtcnn" else dlib_faces.INSTALL
    return UserError(f"--faces {name}", got="it is not installed", next_step=step)
