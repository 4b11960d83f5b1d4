"""Known traps of the real hosts, as this environment and this checkout have them.

None of them reaches ``finetune.py``, ``evaluate_finetune.py`` or a run of the detector ``effort_finetune``;
they decide whether the host's own scripts run other detectors here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from effort_finetune.host import missing_packages as absent
from effort_finetune.host.host import Host
from effort_finetune.host.module_loader import TOP_LEVEL
from effort_finetune.install.finding import Finding, Level

#: Where the hosts look for dlib's 81-point predictor.
LANDMARK_FILES = (
    "preprocessing/dlib_tools/shape_predictor_81_face_landmarks.dat",
    "preprocessing/shape_predictor_81_face_landmarks.dat",
)
_AREA = "other detectors of the host (effort_finetune is not affected)"


@dataclass(frozen=True)
class Problem:
    """One thing that goes wrong with hosts.

    Attributes:
        what: It in one line; ``{name}`` stands for what :attr:`found_in` returns under that name.
        fix: What to do about it, with the same names.
        found_in: Looks for it in a host and this environment; the words to fill in, or whether it is there.
        level: How bad it is.
    """

    what: str
    fix: str
    found_in: Callable[[Host], Mapping[str, str] | bool]
    level: Level = "note"


def find_traps(host: Host) -> list[Finding]:
    """Returns what is known to go wrong with the host's own code here; nothing for the embedded host."""
    if host.embedded:
        return []
    found = []
    for problem in PROBLEMS:
        words = problem.found_in(host)
        if words is not False:
            words = {} if words is True else words
            found.append(
                Finding(_AREA, problem.level, problem.what.format(**words), problem.fix.format(**words))
            )
    return found


def _packages(host: Host) -> Mapping[str, str] | bool:
    missing = sorted(name for name in _third_party(host) if importlib.util.find_spec(name) is None)
    install = " ".join(absent.PIP_NAMES.get(name, name) for name in missing)
    return {"packages": ", ".join(missing), "projects": install} if missing else False


def _landmarks(host: Host) -> Mapping[str, str] | bool:
    if any((host.root / name).is_file() for name in LANDMARK_FILES):
        return False
    return {"path": LANDMARK_FILES[0 if (host.root / LANDMARK_FILES[0]).parent.is_dir() else 1]}


def _index_elsewhere(host: Host) -> bool:
    return (
        "dataset_json_v3" in _text(host, "train.py")
        and not (host.root / "preprocessing/dataset_json_v3").is_dir()
    )


def _no_rank_filter(host: Host) -> bool:
    logger = _text(host, "logger.py")
    return "RankFilter" in _text(host, "train.py") and bool(logger) and "class RankFilter" not in logger


def _text(host: Host, name: str) -> str:
    """A file of training/; empty where there is none."""
    path = host.root / "training" / name
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _third_party(host: Host) -> set[str]:
    training = host.root / "training"
    names: set[str] = set()
    for folder in ("dataset", "detectors", "loss", "networks"):
        for file in (training / folder).rglob("*.py"):
            try:
                imported = absent.absolute_imports(file)
            except SyntaxError:
                continue  # hosts carry files of theirs that never parse; they import nothing either
            names |= {name.partition(".")[0] for name in imported}
    own = {path.stem for path in _modules_beside(training)} | TOP_LEVEL
    return {name for name in names - own if name.isidentifier()}


def _modules_beside(training: Path) -> Iterator[Path]:
    """The host's own files and folders, which it imports by their bare names from several places."""
    for path in training.rglob("*"):
        if path.is_dir() or path.suffix == ".py":
            yield path
    yield training.parent / "preprocessing"


def _version(package: str) -> tuple[int, ...]:
    """A distribution's version as numbers; empty, so smaller than any other, when it is not installed."""
    try:
        text = metadata.version(package)
    except metadata.PackageNotFoundError:
        return ()
    numbers = []
    for part in text.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


#: Every known problem, in the order in which ``doctor`` tells them: the one list.
PROBLEMS: tuple[Problem, ...] = (
    Problem(
        "imgaug cannot be imported under numpy >= 2, and with it the host's `import dataset`",
        "pip install 'numpy<2' in an environment for them",
        lambda host: _version("numpy") >= (2,) and bool(_version("imgaug")),
        "warning",
    ),
    Problem(
        "under albumentations >= 2 the host's own augmentation fails or silently loses JPEG compression",
        "pip install 'albumentations<1.4' in an environment for them",
        lambda host: _version("albumentations") >= (2,),
        "warning",
    ),
    Problem(
        "timm <= 0.6.12, which DeepfakeBench pins, cannot be imported under Python 3.11 and later",
        "pip install 'timm==0.6.13'",
        lambda host: sys.version_info >= (3, 11) and () < _version("timm") <= (0, 6, 12),
        "warning",
    ),
    Problem(
        "lmdb >= 2 refuses to open one database twice, which the host does (train set = test set)",
        "pip install 'lmdb==1.6.2'",
        lambda host: _version("lmdb") >= (2,),
        "warning",
    ),
    Problem(
        "with lmdb >= 1.7 the host's loader workers crash or hang",
        "pip install 'lmdb==1.6.2', or workers: 0",
        lambda host: (1, 7) <= _version("lmdb") < (2,),
        "warning",
    ),
    Problem(
        "they import packages that are not installed: {packages}",
        "pip install {projects}",
        _packages,
    ),
    Problem(
        "no shape_predictor_81_face_landmarks.dat, which the host's cropping and blending datasets need",
        "put it at {path}",
        _landmarks,
    ),
    Problem(
        "the host's own train.py names CUDA outright and cannot train here",
        "train other detectors on a machine with an NVIDIA GPU",
        lambda host: not torch.cuda.is_available(),
    ),
    Problem(
        "`import detectors` leaves autograd's anomaly mode on, which about halves the speed of training",
        "torch.autograd.set_detect_anomaly(False) in train.py",
        lambda host: (host.root / "training/detectors/iid_detector.py").is_file(),
    ),
    Problem(
        "with lmdb: true the host's train.py reads preprocessing/dataset_json_v3, which is not there; "
        "its test.py reads preprocessing/dataset_json",
        "link one to the other",
        _index_elsewhere,
    ),
    Problem(
        "the host's own train.py does not start: it imports a RankFilter that logger.py does not have",
        "add the class to training/logger.py (SCLBD/DeepfakeBench has it)",
        _no_rank_filter,
    ),
)
