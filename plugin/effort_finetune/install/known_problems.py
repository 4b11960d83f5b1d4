"""Known traps of the real hosts, as this environment and this checkout have them.

None of them reaches ``finetune.py``, ``evaluate_finetune.py`` or a run of the detector ``effort_finetune``;
they decide whether the host's own scripts run other detectors here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from effort_finetune.host import missing_packages as absent
from effort_finetune.host.host import Host
from effort_finetune.host.module_loader import TOP_LEVEL
from effort_finetune.install.finding import Finding

#: Where the hosts look for dlib's 81-point predictor.
LANDMARK_FILES = (
    "preprocessing/dlib_tools/shape_predictor_81_face_landmarks.dat",
    "preprocessing/shape_predictor_81_face_landmarks.dat",
)
_AREA = "other detectors of the host (effort_finetune is not affected)"


def find_traps(host: Host) -> list[Finding]:
    """Returns what is known to go wrong with the host's own code here; nothing for the embedded host."""
    if host.embedded:
        return []
    return [*_versions(), *_packages(host), *_landmarks(host), *_device(), *_sources(host)]


def _versions() -> Iterator[Finding]:
    numpy, albumentations, lmdb = (_version(name) for name in ("numpy", "albumentations", "lmdb"))
    if numpy >= (2,) and _version("imgaug"):
        yield _warning(
            "imgaug cannot be imported under numpy >= 2, and with it the host's `import dataset`",
            "pip install 'numpy<2' in an environment for them",
        )
    if albumentations >= (2,):
        yield _warning(
            "under albumentations >= 2 the host's own augmentation fails or silently loses JPEG compression",
            "pip install 'albumentations<1.4' in an environment for them",
        )
    if lmdb >= (2,):
        yield _warning(
            "lmdb >= 2 refuses to open one database twice, which the host does (train set = test set)",
            "pip install 'lmdb==1.6.2'",
        )
    elif lmdb >= (1, 7):
        yield _warning(
            "with lmdb >= 1.7 the host's loader workers crash or hang",
            "pip install 'lmdb==1.6.2', or workers: 0",
        )


def _packages(host: Host) -> Iterator[Finding]:
    missing = sorted(name for name in _third_party(host) if importlib.util.find_spec(name) is None)
    if missing:
        install = " ".join(absent.PIP_NAMES.get(name, name) for name in missing)
        yield Finding(
            _AREA,
            "note",
            f"they import packages that are not installed: {', '.join(missing)}",
            f"pip install {install}",
        )


def _landmarks(host: Host) -> Iterator[Finding]:
    found = next((name for name in LANDMARK_FILES if (host.root / name).is_file()), None)
    if found:
        yield Finding(_AREA, "ok", f"landmark file {found}")
    else:
        yield Finding(
            _AREA,
            "note",
            "no shape_predictor_81_face_landmarks.dat, which the host's cropping and blending datasets need",
            f"put it at {LANDMARK_FILES[0 if (host.root / LANDMARK_FILES[0]).parent.is_dir() else 1]}",
        )


def _device() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding(
            _AREA,
            "note",
            "the host's own train.py names CUDA outright and cannot train here",
            "train other detectors on a machine with an NVIDIA GPU",
        )


def _sources(host: Host) -> Iterator[Finding]:
    if (host.root / "training/detectors/iid_detector.py").is_file():
        yield Finding(
            _AREA,
            "note",
            "`import detectors` leaves autograd's anomaly mode on, which about halves the speed of training",
            "torch.autograd.set_detect_anomaly(False) in train.py",
        )
    script = host.root / "training/train.py"
    train = script.read_text(encoding="utf-8", errors="replace") if script.is_file() else ""
    if "dataset_json_v3" in train and not (host.root / "preprocessing/dataset_json_v3").is_dir():
        yield Finding(
            _AREA,
            "note",
            "with lmdb: true the host's train.py reads preprocessing/dataset_json_v3, which is not there; "
            "its test.py reads preprocessing/dataset_json",
            "link one to the other",
        )
    logger = host.root / "training/logger.py"
    if (
        "RankFilter" in train
        and logger.is_file()
        and "class RankFilter" not in logger.read_text("utf-8", "replace")
    ):
        yield Finding(
            _AREA,
            "note",
            "the host's own train.py does not start: it imports a RankFilter that logger.py does not have",
            "add the class to training/logger.py (SCLBD/DeepfakeBench has it)",
        )


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


def _warning(what: str, cure: str) -> Finding:
    return Finding(_AREA, "warning", what, cure)


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
