"""Where the bytes of a frame come from: an LMDB or plain files, under any spelling of the path.

An index written on one system is often read on another: backslashes or slashes, with or without
``./datasets/``, or whole paths of the machine it was written on. The rule that translates a listed path is
chosen once per dataset, by trying a few frames; the host's own rule first.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from effort_finetune.core.errors import UserError, suggest
from effort_finetune.data import lmdb_pool
from effort_finetune.data.index import C40_SUFFIX

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

FFPP_LMDB = "FaceForensics++_lmdb"
FFPP_FAMILY = frozenset(
    {"FaceForensics++", "FaceShifter", "DeepFakeDetection", "FF-DF", "FF-F2F", "FF-FS", "FF-NT"}
)
PROBES = 64


class FrameSource(Protocol):
    """Encoded frames by the path that the index lists."""

    @property
    def kind(self) -> str:
        """``lmdb`` or ``files``."""

    @property
    def location(self) -> str:
        """The folder that is read."""

    @property
    def rule(self) -> str:
        """Name of the translation from listed path to key or file."""

    def read(self, path: str) -> bytes | None:
        """The encoded image, None where it does not exist."""

    def size(self, path: str) -> int:
        """Bytes of the encoded image, 0 where it is missing."""
        ...

    def present(self, paths: Sequence[str]) -> list[bool]:
        """Tells for each frame whether it exists, without reading it."""


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _without_prefix(path: str) -> str:
    """Cuts all up to ``datasets/rgb/`` or ``datasets/``, whatever separator or drive comes before it."""
    return re.sub(r"^(.*/)?datasets/(rgb/)?", "", _slashes(path)).removeprefix("./")


def _host_key(path: str) -> str:
    """The host's own rule: the path as it is, without a leading ``./datasets\\``."""
    return path.replace("./datasets\\", "") if path.startswith(".") else path


def _mixed(path: str) -> str:
    """What a build on Linux writes: ``name`` + backslash + a path with slashes."""
    return _without_prefix(path).replace("/", "\\", 1)


def _own_part(path: str, names: Sequence[str]) -> str:
    """Cuts what stands before the dataset's own folder: ``/home/u/faces/UADFV/real`` is ``UADFV/real``.

    The last such folder counts: ``UADFV`` may be part of where somebody keeps it, too.
    """
    parts = _slashes(path).split("/")
    at = max((place for place, part in enumerate(parts[:-1]) if part in names), default=0)
    return "/".join(parts[at:])


LMDB_RULES: Mapping[str, Callable[[str, Sequence[str]], str]] = {
    "host": lambda path, _: _host_key(path),
    "backslashes": lambda path, _: _without_prefix(path).replace("/", "\\"),
    "slashes": lambda path, _: _without_prefix(path),
    "first_backslash": lambda path, _: _mixed(path),
    "own_part_backslashes": lambda path, names: _own_part(path, names).replace("/", "\\"),
    "own_part_slashes": _own_part,
}
FILE_RULES: Mapping[str, Callable[[str, Sequence[str]], str]] = {
    "under_rgb_dir": lambda path, _: _without_prefix(path),
    "as_listed": lambda path, _: _slashes(path),
    "own_part": _own_part,
}


@dataclass(frozen=True)
class LmdbSource:
    """Frames in an LMDB; picklable, since the environment is opened by the process that reads.

    Attributes:
        location: Folder of the LMDB, symbolic links resolved.
        rule: Name of the translation from listed path to key (:data:`LMDB_RULES`).
        names: Of the dataset's own folder, for the rules that look for it.
    """

    location: str
    rule: str = "host"
    names: tuple[str, ...] = ()
    kind: str = "lmdb"

    def key(self, path: str) -> bytes:
        """The key of a listed path."""
        return LMDB_RULES[self.rule](path, self.names).encode()

    def read(self, path: str) -> bytes | None:
        """The encoded image, None where the LMDB has no such key."""
        return lmdb_pool.read_value(self.location, self.key(path))

    def size(self, path: str) -> int:
        """Its bytes, 0 where there is no such key."""
        return len(self.read(path) or b"")

    def present(self, paths: Sequence[str]) -> list[bool]:
        """Tells for each frame whether its key exists."""
        return lmdb_pool.keys_present(self.location, [self.key(path) for path in paths])


@dataclass(frozen=True)
class FileSource:
    """Frames as image files.

    Attributes:
        location: Folder that relative paths stand in (``rgb_dir``, or the host's root for ``as_listed``).
        rule: Name of the translation from listed path to file (:data:`FILE_RULES`).
        names: Of the dataset's own folder, for the rule that looks for it.
    """

    location: str
    rule: str = "under_rgb_dir"
    names: tuple[str, ...] = ()
    kind: str = "files"

    def file(self, path: str) -> str:
        """The file of a listed path; an absolute path stands for itself."""
        return os.path.join(self.location, FILE_RULES[self.rule](path, self.names))

    def read(self, path: str) -> bytes | None:
        """The encoded image, None where there is no such file."""
        file = self.file(path)
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):
                return None  # a pipe waits for ever, a device never ends
            with open(file, "rb") as stream:
                return stream.read()
        except ValueError:  # a null byte in the name
            return None
        except OSError:
            if os.path.isfile(file):
                raise  # there, but the disk or its rights refuse it: nothing a result may hide
            return None

    def size(self, path: str) -> int:
        """Its bytes, 0 where there is no such file."""
        try:
            return os.stat(self.file(path)).st_size
        except (OSError, ValueError):
            return 0

    def present(self, paths: Sequence[str]) -> list[bool]:
        """Tells for each frame whether its file exists."""
        return [os.path.isfile(self.file(path)) for path in paths]


def lmdb_folder(host: Host, settings: Settings, name: str) -> Path:
    """The LMDB of a dataset; all of FaceForensics++'s family share one.

    Raises:
        UserError: There is no LMDB there.
    """
    root = host.resolve(settings.lmdb_dir)
    key = name.removesuffix(C40_SUFFIX)
    candidates = [root / f"{name}_lmdb"]
    if key in FFPP_FAMILY:
        # `FF-DF` is read from the family's LMDB even where one of its own lies beside it, as the host does.
        candidates = [root / FFPP_LMDB] if key == name else [root / f"{name}_lmdb", root / FFPP_LMDB]
    for candidate in candidates:
        if lmdb_pool.is_lmdb(candidate):
            return candidate
    near = suggest(candidates[0].name, [path.name for path in root.glob("*_lmdb")]) if root.is_dir() else []
    raise UserError(
        f"LMDB of dataset {name!r} not found",
        got=f"no data.mdb in {candidates[0]}" + (f" (there is {', '.join(near)})" if near else ""),
        expected=f"{' or '.join(path.name for path in candidates)} in lmdb_dir",
        next_step="set lmdb_dir, run `effort-finetune prepare lmdb`, or read files with `--lmdb false`",
    )


def open_source(host: Host, settings: Settings, name: str, paths: Sequence[str]) -> FrameSource:
    """Finds a dataset's frames and the rule that translates its paths.

    Args:
        host: Host whose folders are meant.
        settings: ``lmdb``, ``lmdb_dir`` and ``rgb_dir`` are read.
        name: Dataset.
        paths: Frame paths as listed; up to 64 of them, spread evenly, are tried.

    Raises:
        UserError: No LMDB or no ``rgb_dir``, or none of the tried frames is in it under any rule.
    """
    probes = _spread(paths, PROBES)
    names = _folder_names(name)
    candidates: list[FrameSource]
    if settings.lmdb:
        folder = os.path.realpath(lmdb_folder(host, settings, name))
        candidates = [LmdbSource(folder, rule, names) for rule in LMDB_RULES]
    else:
        rgb = os.path.realpath(host.resolve(settings.rgb_dir))
        candidates = [
            FileSource(rgb, "under_rgb_dir"),
            FileSource(str(host.root), "as_listed"),
            FileSource(rgb, "own_part", names),
        ]
    best, found = candidates[0], 0
    absolute = not settings.lmdb and bool(probes) and os.path.isabs(probes[0])  # stands for itself, if it can
    for candidate in [candidates[1], candidates[0], *candidates[2:]] if absolute else candidates:
        count = sum(candidate.present(probes))
        if count > found:
            best, found = candidate, count
        if found == len(probes):
            break
    if isinstance(best, FileSource) and not settings.allow_outside_paths:
        _refuse_outside(name, best, paths, (os.path.realpath(host.resolve(settings.rgb_dir)), str(host.root)))
    if not found:
        raise _nothing_found(name, candidates[0], probes)
    return best


def _refuse_outside(name: str, source: FileSource, paths: Sequence[str], roots: Sequence[str]) -> None:
    """An index is a file from somewhere: what it lists is read, and shown in reports.

    Raises:
        UserError: A path leads out of the folders that the user named.
    """
    starts = tuple(os.path.join(os.path.abspath(root), "") for root in roots)
    outside = []
    for path in paths:
        if ".." in path or os.path.isabs(path) or os.path.isabs(FILE_RULES[source.rule](path, source.names)):
            file = os.path.abspath(source.file(path))
            if not file.startswith(starts):
                outside.append(path)
    if outside:
        raise UserError(
            f"{len(outside)} of {len(paths)} frames of dataset {name!r} lie outside its folders",
            got=repr(outside[0]),
            expected=f"paths below {' or '.join(roots)}",
            next_step="set rgb_dir to their folder, or allow_outside_paths if you trust the index",
        )


def _folder_names(name: str) -> tuple[str, ...]:
    """What the folder of a dataset's crops is called; all of FaceForensics++'s family may share one."""
    key = name.removesuffix(C40_SUFFIX)
    return (key, FFPP_LMDB.removesuffix("_lmdb")) if key in FFPP_FAMILY else (key,)


def _spread(paths: Sequence[str], count: int) -> list[str]:
    step = max(1, len(paths) // count)
    return list(paths[::step][:count])


def _nothing_found(name: str, source: FrameSource, probes: Sequence[str]) -> UserError:
    if source.kind == "lmdb":
        held = [key.decode(errors="replace") for key in lmdb_pool.first_keys(source.location, 1)]
        return UserError(
            f"LMDB {source.location} holds none of the frames of dataset {name!r}",
            got=f"keys like {held[0]!r}" if held else "an empty LMDB",
            expected=f"keys like {probes[0]!r}",
            next_step="take LMDB and JSON from one source, or run `effort-finetune prepare lmdb`",
        )
    return UserError(
        f"none of the frames of dataset {name!r} is in rgb_dir",
        got=f"{len(probes)} frames tried, no file such as {source.location}/{_without_prefix(probes[0])}",
        expected="image files under rgb_dir at the paths that the JSON lists",
        next_step="set rgb_dir to the folder that holds the dataset's, or read the LMDB with `--lmdb true`",
    )
