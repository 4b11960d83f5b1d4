"""The file of a leaderboard: which detectors, on which datasets, with which seeds, shown how."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.strict_yaml import read_yaml
from effort_finetune.data.dataset_name import is_path
from effort_finetune.evaluate.dataset_results import parse_metric

SEED_MARK = "{seed}"
MOST_CELLS = 100_000
#: Settings that the board itself decides.
OURS = ("test_dataset", "output_dir", "resume", "manualSeed", "pretrained_weights", "model_name", "save_to")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DetectorEntry(_Part):
    """One detector.

    Attributes:
        name: Its row in the table.
        weights: Checkpoint; may hold ``{seed}``. With ``finetune`` it is what the training starts from.
        scores: Results that are there already (a folder or results.json, of import-scores, evaluate or
            finetune) in place of a run; may hold ``{seed}``.
        model_name: A detector of the host; ours without.
        detector_config: Settings files, the later ones win.
        preset: Named settings on top of them.
        settings: Further settings.
        finetune: Settings of a training, once for each seed, whose selected weights are measured.
    """

    name: str = Field(min_length=1, max_length=200)
    weights: str | None = None
    scores: str | None = None
    model_name: str | None = None
    detector_config: tuple[str, ...] = ()
    preset: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    finetune: dict[str, Any] | None = None

    @property
    def by_seed(self) -> bool:
        """Whether another seed is another detector."""
        return self.finetune is not None or any(
            SEED_MARK in (text or "") for text in (self.weights, self.scores)
        )


class BoardFile(_Part):
    """A leaderboard.

    Attributes:
        title: Its heading.
        host: DeepfakeBench checkout; found as for every command without.
        output_dir: Folder of all that is written; the file's name without its suffix, beside it.
        detectors: The rows.
        datasets: The columns: names of the host's index, or folders.
        seeds: Of trainings; the first is the seed of all measurements.
        in_domain: Columns whose kind was trained on; without, those that a training of the file holds.
        metrics: ``<level>_<metric>`` names, a table each.
        declared: The metric that decides which rows are told from the best.
        groups: Whether each generator or manipulation gets a row in a table of its own.
        settings: Settings of all detectors.
        published: Names of ``configs/published`` or files of that kind, shown beside the measured rows.
        published_as: Column to the name under which it is published.
    """

    title: str = ""
    host: str | None = None
    output_dir: str | None = None
    detectors: tuple[DetectorEntry, ...] = Field(min_length=1)
    datasets: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(1024,), min_length=1)
    in_domain: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ("video_auc",)
    declared: Literal["video_auc", "frame_auc"] = "video_auc"
    groups: bool = False
    settings: dict[str, Any] = {}
    published: tuple[str, ...] = ()
    published_as: dict[str, str] = {}


def read_board(path: Path) -> BoardFile:
    """Reads a leaderboard's file.

    Returns:
        The board; paths in it are absolute, relative ones being relative to the file's folder.

    Raises:
        UserError: If it is no such file; everything that is wrong with it at once.
    """
    tree = read_yaml(path, next_step="effort-finetune leaderboard FILE.yaml")
    if not isinstance(tree, dict):
        raise UserError(f"{path} is no leaderboard", got=type(tree).__name__, expected="keys with values")
    try:
        board = BoardFile.model_validate(tree)
    except ValidationError as error:
        raise UserErrors(_lines(error, path)) from None
    errors = list(_contradictions(board, path))
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)
    return _absolute(board, path.resolve().parent)


def _lines(error: ValidationError, path: Path) -> list[UserError]:
    lines = []
    for detail in error.errors(include_url=False):
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in detail["loc"])
        if detail["type"] == "missing":
            lines.append(UserError(f"{path}: {place}", got="nothing", expected="a value"))
        elif detail["type"] == "extra_forbidden":
            known = ", ".join(
                BoardFile.model_fields if len(detail["loc"]) == 1 else DetectorEntry.model_fields
            )
            lines.append(UserError(f"{path}: unknown key", got=place, expected=f"one of {known}"))
        else:
            lines.append(
                UserError(f"{path}: {place}", got=repr(detail["input"])[:200], expected=detail["msg"])
            )
    return lines


def _contradictions(board: BoardFile, path: Path) -> list[UserError]:
    errors = []
    for what, values in (
        ("detectors", [entry.name for entry in board.detectors]),
        ("datasets", board.datasets),
        ("seeds", board.seeds),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        errors += [
            UserError(f"{path}: {what}", got=f"{value} twice", expected="each once") for value in twice
        ]
    for entry in board.detectors:
        place = f"{path}: detector {entry.name!r}"
        if entry.scores is not None and (entry.weights or entry.finetune is not None):
            errors.append(
                UserError(place, got="scores and a run", expected="one of scores, weights, finetune")
            )
        if entry.scores is None and entry.weights is None and entry.finetune is None:
            errors.append(UserError(place, got="neither", expected="weights, scores or finetune"))
        given = (board.settings, entry.settings, entry.finetune or {})
        wrong = sorted({key for tree in given for key in tree if key in OURS})
        errors += [
            UserError(place, got=f"a setting {key}", expected="what the leaderboard leaves open")
            for key in wrong
        ]
        if entry.finetune is not None and not entry.finetune.get("train_dataset"):
            errors.append(UserError(f"{place}, finetune", got="no train_dataset", expected="at least one"))
    for name in (*(board.in_domain or ()), *board.published_as):
        if name not in board.datasets:
            errors.append(
                UserError(f"{path}: {name}", got="no column", expected=f"one of {', '.join(board.datasets)}")
            )
    for metric in board.metrics:
        try:
            parse_metric(metric, where=f"{path}: metrics")
        except UserError as error:
            errors.append(error)
    if any(not 0 <= seed < 2**32 for seed in board.seeds):
        errors.append(UserError(f"{path}: seeds", got=str(board.seeds), expected="0 to 4294967295"))
    if len(board.detectors) * len(board.datasets) * len(board.seeds) > MOST_CELLS:
        errors.append(UserError(f"{path}", got="too many cells", expected=f"up to {MOST_CELLS}"))
    return errors


def _absolute(board: BoardFile, root: Path) -> BoardFile:
    def placed(text: str | None) -> str | None:
        return None if text is None else str(root / Path(text).expanduser())

    def dataset(name: str) -> str:
        return str(root / Path(name).expanduser()) if is_path(name) else name

    def trees(tree: dict[str, Any] | None) -> dict[str, Any] | None:
        """Training datasets are names or folders, and no setting that is known as a path."""
        if tree is None:
            return None
        keys = [key for key in ("train_dataset", "val_dataset") if tree.get(key)]
        lists = {key: [tree[key]] if isinstance(tree[key], str) else list(tree[key]) for key in keys}
        return {**tree, **{key: [dataset(str(name)) for name in names] for key, names in lists.items()}}

    entries = tuple(
        entry.model_copy(
            update={
                "weights": placed(entry.weights),
                "scores": placed(entry.scores),
                "detector_config": tuple(map(str, map(placed, entry.detector_config))),
                "settings": trees(entry.settings),
                "finetune": trees(entry.finetune),
            }
        )
        for entry in board.detectors
    )
    metrics = tuple(dict.fromkeys([board.declared, *("_".join(parse_metric(m)) for m in board.metrics)]))
    return board.model_copy(
        update={
            "host": placed(board.host),
            "output_dir": placed(board.output_dir),
            "detectors": entries,
            "datasets": tuple(map(dataset, board.datasets)),
            "in_domain": None if board.in_domain is None else tuple(map(dataset, board.in_domain)),
            "metrics": metrics,
            "published_as": {dataset(name): value for name, value in board.published_as.items()},
        }
    )
