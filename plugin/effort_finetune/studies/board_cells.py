"""The cells of a leaderboard: what each asks for, where it lies, and whether it is there already.

A folder's name holds a hash of all that can change its numbers: settings, weights, data. What was made under
other settings lies in another folder and is never taken for this, whenever the process was killed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from effort_finetune.config import Settings
from effort_finetune.config.resolve import resolve
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import sha256_file
from effort_finetune.core.strict_json import read_json
from effort_finetune.data.dataset_name import file_stem, folder_of, labels_of
from effort_finetune.evaluate.results import SCHEMA_VERSION
from effort_finetune.host import Host
from effort_finetune.host.settings_files import preset, settings_files
from effort_finetune.studies.board_file import SEED_MARK, BoardFile, DetectorEntry

_KEY = 12  # hexadecimal digits


@dataclass(frozen=True)
class Board:
    """A leaderboard with its host.

    Attributes:
        file: Where it was read from.
        asked: What it says.
        host: The host.
        folder: Of all that is written.
        labels: Dataset to its column's heading.
    """

    file: Path
    asked: BoardFile
    host: Host
    folder: Path
    labels: Mapping[str, str]

    def settings(
        self, entry: DetectorEntry, mode: Literal["train", "test"], extra: Mapping[str, Any]
    ) -> Settings:
        """Resolves the settings of one run of a detector.

        Raises:
            UserError: If a setting is wrong.
        """
        layers = [*map(Path, entry.detector_config), *map(preset, entry.preset)]
        files = settings_files(self.host, entry.model_name, layers, own_config=bool(entry.detector_config))
        model = {} if entry.model_name is None else {"model_name": entry.model_name}
        return resolve(
            flags={**_flat(self.asked.settings), **_flat(entry.settings), **model, **extra},
            yaml_path=files,
            host_defaults=self.host.default_settings(mode),
            host_root=self.host.root,
            flags_source=f"{self.file.name}, detector {visible(entry.name)!r}",
            flags_root=self.file.resolve().parent,
        )


@dataclass(frozen=True)
class Cell:
    """One detector on one dataset with one seed.

    Attributes:
        entry: The detector.
        dataset: The dataset, as asked for.
        seed: Of its training; ``None`` of a detector that no seed changes.
    """

    entry: DetectorEntry
    dataset: str
    seed: int | None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{visible(self.entry.name)}{seed}, {visible(self.dataset)}"


@dataclass(frozen=True)
class Training:
    """One fine-tuning.

    Attributes:
        entry: The detector.
        seed: Its seed.
        settings: Resolved settings.
        folder: Its run folder.
    """

    entry: DetectorEntry
    seed: int
    settings: Settings = field(repr=False)
    folder: Path

    def __str__(self) -> str:
        return f"{visible(self.entry.name)}, seed {self.seed}, fine-tuning"

    @property
    def weights(self) -> Path:
        """The selected weights."""
        from effort_finetune.weights.run_state import BEST_NAME  # imports torch; finding a mistake needs none

        return self.folder / BEST_NAME

    def done(self) -> bool:
        """Whether the run is complete and its selected weights are those of its results."""
        document = complete(self.folder)
        if document is None or not self.weights.is_file():
            return False
        return bool(document["checkpoint"]["sha256"] == _sha256(self.weights))


def cells_of(board: BoardFile) -> list[Cell]:
    """Returns all cells, detector by detector, seed by seed."""
    return [
        Cell(entry, dataset, seed)
        for entry in board.detectors
        for seed in (board.seeds if entry.by_seed else (None,))
        for dataset in board.datasets
    ]


def training_of(board: Board, entry: DetectorEntry, seed: int) -> Training:
    """Returns the training of a detector with one seed.

    Raises:
        UserError: If its settings are wrong, or its weights do not exist.
    """
    weights = weights_of(entry, seed)
    extra: dict[str, Any] = {**_flat(entry.finetune or {}), "manualSeed": seed, "test_dataset": []}
    extra |= {"save_to": None}
    extra |= {} if weights is None else {"pretrained_weights": str(weights)}
    settings = board.settings(entry, "train", extra)
    names = (*settings.train_dataset, *(settings.val_dataset or ()))
    key = _digest(
        settings.digest(), None if weights is None else _sha256(weights), _stamps(board, settings, names)
    )
    folder = board.folder / "runs" / file_stem(entry.name) / f"seed_{seed}-{key}"
    return Training(entry, seed, settings.changed(output_dir=str(folder)), folder)


def weights_of(entry: DetectorEntry, seed: int | None) -> Path | None:
    """Returns the weights that an entry names for a seed.

    Raises:
        UserError: If they do not exist.
    """
    if entry.weights is None:
        return None
    path = Path(entry.weights.replace(SEED_MARK, str(seed)))
    if not path.exists():
        raise UserError(f"weights of {visible(entry.name)}", got=f"{visible(path)}, which does not exist")
    return path


def measuring(board: Board, cell: Cell) -> Settings:
    """Returns the settings by which a cell is measured: of one dataset, with the board's first seed.

    Raises:
        UserError: If a setting is wrong.
    """
    extra = {"test_dataset": [cell.dataset], "manualSeed": board.asked.seeds[0]}
    return board.settings(cell.entry, "test", extra)


def cell_folder(board: Board, cell: Cell, weights: Path) -> Path:
    """Returns the folder of a cell that is run."""
    settings = measuring(board, cell)
    key = _digest(settings.digest(), _sha256(weights), _stamps(board, settings, [cell.dataset]))
    seed = "measured" if cell.seed is None else f"seed_{cell.seed}"
    names = file_stem(cell.entry.name), file_stem(board.labels[cell.dataset])
    return board.folder.joinpath("cells", *names, f"{seed}-{key}")


def complete(folder: Path) -> Mapping[str, Any] | None:
    """Returns the results document of a folder; ``None`` where there is none, or not a complete one."""
    try:
        document = read_json(folder / "results.json")
    except (OSError, ValueError):
        return None
    whole = isinstance(document, dict) and document.get("status") == "complete"
    return document if whole else None


def headings(host: Host, board: BoardFile) -> dict[str, str]:
    """Returns dataset to its heading, as results call it."""
    labels = labels_of(host.settings("test"), board.datasets)
    return {name: labels[name] for name in board.datasets}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Groups as dotted keys, so that a later one changes a key and not the whole group."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and key != "label_dict"
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _digest(*parts: object) -> str:
    text = json.dumps([SCHEMA_VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY]


def _stamps(board: Board, settings: Settings, names: Sequence[str]) -> list[str]:
    return [_stamp(board.host, settings, name) for name in names]


def _stamp(host: Host, settings: Settings, name: str) -> str:
    """A hash of what a dataset lists: its index, or names and sizes of a folder's files."""
    folder = folder_of(host, settings, name)
    if folder is not None:
        return _tree_stamp(folder.resolve())
    for stem in (name, name.removesuffix("_c40")):
        index = host.resolve(settings.dataset_json_folder) / f"{stem}.json"
        if index.is_file():
            return _sha256(index)
    return "none"  # evaluate says what is wrong with the name


@functools.cache
def _tree_stamp(folder: Path) -> str:
    digest = hashlib.sha256()
    for line in sorted(_listed(folder)):
        digest.update(line)
    return digest.hexdigest()


def _listed(folder: Path) -> Iterator[bytes]:
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(root, name)
            size = os.path.getsize(path) if os.path.exists(path) else -1
            yield os.fsencode(f"{os.path.relpath(path, folder)}\0{size}\n")


def _sha256(path: Path) -> str:
    state = path.stat()
    return _content_sha256(path, state.st_mtime_ns, state.st_size)


@functools.cache
def _content_sha256(path: Path, changed: int, size: int) -> str:
    """SHA-256 of a file, read once however many cells ask; of a folder, of its files' names and contents."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        parts = [f"{file.relative_to(path)} {sha256_file(file)}" for file in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return sha256_file(path)
