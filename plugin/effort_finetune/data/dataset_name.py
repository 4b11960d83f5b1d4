"""A dataset is a name of the host's index or a path to a folder: which of the two, and what it is called.

With a separator, a leading dot or ``~`` it is a path. A bare name is the index's; where the index has none, a
folder of that name in the working directory.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.core.errors import UserError, UserErrors, suggest
from effort_finetune.core.escaping import visible
from effort_finetune.data.index import find_index

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

JOINED = 3  # so many names stand in a file's name; of more, the first and a count
LONGEST_TAG = 80


def is_path(name: str) -> bool:
    """Tells whether a dataset is asked for by a path, judged by its spelling alone."""
    return name.startswith((".", "~")) or any(mark in name for mark in ("/", "\\", os.sep))


def folder_of(host: Host, settings: Settings, name: str) -> Path | None:
    """The folder that a dataset is, None for a dataset of the index.

    A relative path is looked for in the working directory, then in the host's root.

    Raises:
        UserError: A path at which there is no folder, or an empty name.
    """
    if not name.strip():  # as a path it would be the working directory
        raise UserError(
            f"dataset {name!r}", got="an empty name",
            expected="a folder of pictures, or a name of the host's index",
        )  # fmt: skip
    if not is_path(name):
        listed = host.resolve(settings.dataset_json_folder)
        if any((listed / f"{stem}.json").is_file() for stem in (name, name.removesuffix("_c40"))):
            return None
        return Path(name) if Path(name).is_dir() else None
    written = Path(os.path.expanduser(name))
    candidates = [written] if written.is_absolute() else [written, Path(host.root) / written]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    if written.exists():
        raise UserError(
            f"dataset {visible(name)!r}",
            got="a file",
            expected="a folder of pictures, or a name of the host's index",
            next_step="give the folder that holds it",
        )
    raise UserError(
        f"dataset {visible(name)!r}",
        got=f"no folder {visible(str(Path(os.path.abspath(written))))}",
        expected="a folder of pictures, or a name of the host's index",
        next_step=_near(written) or "check the path; a relative one starts at the working directory",
    )


def _near(path: Path) -> str | None:
    parent = path.parent
    if not parent.is_dir():
        while not parent.is_dir() and parent != parent.parent:
            parent = parent.parent
        return f"the path is right up to {visible(os.path.abspath(parent))}"
    near = suggest(path.name, (entry.name for entry in os.scandir(parent) if entry.is_dir()))
    return f"did you mean {' or '.join(visible(str(parent / name)) for name in near)}?" if near else None


def is_shadowed(host: Host, settings: Settings, name: str) -> bool:
    """Tells whether a bare name of the index is a folder of the working directory as well."""
    return not is_path(name) and Path(name).is_dir() and folder_of(host, settings, name) is None


def labels_of(settings: Settings, names: Sequence[str] = ()) -> dict[str, str]:
    """What each dataset of a run is called in its results: a name as it is, a folder by its path's tail.

    The tail is the shortest one that no other dataset of the run has, also where capitals do not count (as in
    the names of files on a Mac), with ``/`` between its parts.

    Args:
        settings: Their training, validation and test datasets.
        names: Further datasets.
    """
    asked = dict.fromkeys(
        (*settings.train_dataset, *(settings.val_dataset or ()), *settings.test_dataset, *names)
    )
    # Spellings of one folder share its label.
    parts = {name: _parts(name) for name in asked if is_path(name)}
    taken = {name.lower() for name in asked if not is_path(name)}
    places = set(parts.values())
    labels = {name: name for name in asked}
    for name, own in parts.items():
        for length in range(1, len(own) + 1):
            tail = _folded(own[-length:])
            others = sum(_folded(place[-length:]) == tail for place in places)
            if others == 1 and "/".join(tail) not in taken:
                break
        labels[name] = visible("/".join(own[-length:]))
    return labels


def label_of(settings: Settings, name: str) -> str:
    """What one dataset is called in the results of a run with these settings."""
    return labels_of(settings, [name])[name]


def _folded(parts: Sequence[str]) -> list[str]:
    return [part.lower() for part in parts]


def _parts(name: str) -> tuple[str, ...]:
    path = os.path.abspath(os.path.expanduser(name.replace("\\", "/") if os.sep == "/" else name))
    return Path(path).parts


def file_stem(label: str) -> str:
    """A dataset's label as part of a file's name: letters, digits and ``_.+-`` stay, ``/`` becomes ``__``."""
    return re.sub(
        r"[^\w.+-]", lambda found: "%" + found[0].encode("utf-8", "replace").hex(), label.replace("/", "__")
    )


def tag_of(labels: Sequence[str]) -> str:
    """Datasets as part of a file's name: ``uadfv_celeb-df-v2``; of many the first and a count, ``a+44``."""
    plain = [re.sub(r"[^\w.+-]+", "-", label).lower() for label in labels]
    tag = "_".join(plain)
    if len(plain) > JOINED or len(tag) > LONGEST_TAG:
        tag = f"{plain[0][:LONGEST_TAG]}+{len(plain) - 1}" if len(plain) > 1 else plain[0][:LONGEST_TAG]
    return tag


def check_names(host: Host, settings: Settings, *, which: Sequence[str]) -> list[str]:
    """Looks for every dataset of a run before anything is read, so that the last one's error is the first.

    Args:
        host: The open host.
        settings: The run's settings.
        which: Settings to look at, such as ``train_dataset``.

    Returns:
        Notes worth a line: names that are a folder too.

    Raises:
        UserErrors: One line for each path without a folder, each name without an index, and each training
            dataset given twice.
    """
    notes: list[str] = []
    errors: list[UserError] = []
    for key in which:
        asked = getattr(settings, key) or ()
        places: Counter[str] = Counter()
        for name in asked:
            try:
                folder = folder_of(host, settings, name)
                places[name if folder is None else os.path.realpath(folder)] += 1
                if folder is None:
                    find_index(host, settings, name)
            except UserError as error:
                errors.append(error)
        twice = [place for place, count in places.items() if count > 1]
        if twice and key == "train_dataset":
            errors.append(UserError(
                f"--{key}", got=f"{visible(twice[0])} twice", expected="each dataset once",
                next_step="take one of the two out",
            ))  # fmt: skip
        if errors:
            continue
        notes += [
            f"{name} is a dataset of the index and a folder here: the index is read; ./{name} is the folder"
            for name in asked
            if is_shadowed(host, settings, name)
        ]
    if errors:
        # A folder of indexes that is not there is one error, however many datasets should have been in it.
        raise UserErrors({str(error): error for error in errors}.values())
    return notes
