"""The results file: built in one place, checked against the shipped JSON Schema, written atomically."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import write_json
from effort_finetune.core.metrics import TABLE
from effort_finetune.core.strict_json import read_json
from effort_finetune.core.verdict_rule import threshold_of
from effort_finetune.data.dataset_name import labels_of

if TYPE_CHECKING:
    import torch

    from effort_finetune.config import Settings
    from effort_finetune.evaluate.dataset_results import DatasetResults
    from effort_finetune.host import Host

SCHEMA_VERSION = "1.2"  # docs/results.md says what each one added


def build(
    *,
    kind: str,
    settings: Settings,
    host: Host,
    results: DatasetResults,
    checkpoint: Mapping[str, Any] | None,
    device: torch.device,
    autocast: torch.dtype | None,
    timings: Mapping[str, float],
    command: Sequence[str] = (),
    split: str = "test",
    status: str = "complete",
    reason: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Assembles the document of one run.

    Args:
        kind: ``evaluation`` or ``finetuning``.
        settings: The resolved settings.
        host: The open host.
        results: The datasets that were measured, all or those before a failure.
        checkpoint: At least ``path``, ``sha256`` and ``layout`` of the weights that were measured.
        device: The model's device.
        autocast: Precision of the forward pass.
        timings: Seconds by name.
        command: The command line.
        split: The split that was measured.
        status: ``complete`` or ``failed``.
        reason: Why it failed.
        training: What a fine-tuning run adds (history, selection, parameter counts), JSON types only.

    Returns:
        The document; see ``schema.json``.
    """
    # Reading a results file, which comparisons do, needs no torch.
    from effort_finetune.evaluate.protocol import protocol
    from effort_finetune.evaluate.provenance import device_info

    return assemble(
        kind=kind,
        settings=settings,
        host=host.provenance(),
        results=results,
        protocol=protocol(
            settings,
            split=split,
            autocast=autocast,
            bootstrap_samples=settings.bootstrap_samples,
            trained=kind == "finetuning",
        ),
        checkpoint=checkpoint,
        device=device_info(device, autocast),
        timings=timings,
        command=command,
        status=status,
        reason=reason,
        training=training,
    )


def assemble(
    *,
    kind: str,
    settings: Settings,
    host: Mapping[str, Any],
    results: DatasetResults,
    protocol: Mapping[str, Any],
    checkpoint: Mapping[str, Any] | None,
    device: Mapping[str, Any] | None,
    timings: Mapping[str, float],
    command: Sequence[str],
    status: str,
    reason: str | None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Puts a document together of its blocks, the arguments of :func:`build` where not named here.

    Args:
        kind: ``import`` beside those of :func:`build`.
        settings: For names, threshold and seed.
        host: The host block.
        results: The datasets.
        protocol: The rules, ``threshold`` and ``verdict_rule`` among them.
        checkpoint: The weights' block.
        device: The device block; ``None`` of scores that somebody else computed.
        timings: Seconds by name.
        command: The command line.
        status: ``complete`` or ``failed``.
        reason: Why it failed.
        training: The training block.
    """
    from effort_finetune.evaluate.across_datasets import across_datasets
    from effort_finetune.evaluate.group_rows import over_samples
    from effort_finetune.evaluate.provenance import code_version, library_versions

    measured = list(results.datasets.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "status": status,
        "reason": reason,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "datasets": results.to_dict(),
        "average": {
            **results.average([labels_of(settings)[name] for name in settings.test_dataset]),
            "over_samples": over_samples(measured, threshold=threshold_of(protocol)),
            "across": across_datasets(
                {r.name: (r.videos.label, r.videos.prob) for r in measured if r.videos},
                {r.name: r.block.get("groups") or {} for r in measured},
            ),
        },
        "protocol": dict(protocol),
        "checkpoint": None if checkpoint is None else dict(checkpoint),
        "training": None if training is None else dict(training),
        "settings": settings.to_dict(),
        "settings_digest": settings.digest(),
        "code": code_version(),
        "host": dict(host),
        "libraries": library_versions(),
        "device": None if device is None else dict(device),
        "seeds": {"manualSeed": settings.manualSeed},
        "timings": dict(timings),
    }


def write(path: Path | str, document: Mapping[str, Any]) -> Path:
    """Checks a document and writes it atomically.

    Raises:
        ValueError: If it does not fit the schema; that is a bug of the writer, nothing is written.
    """
    problems = list(validate(document))
    if problems:
        raise ValueError(f"results do not fit the schema: {'; '.join(problems[:5])}")
    return write_json(path, document)


def read(path: Path | str) -> dict[str, Any]:
    """Reads a results file.

    Raises:
        UserError: If it is missing, no JSON, or of another shape or schema version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "results.json"
    try:
        document = read_json(path)
    except FileNotFoundError as error:
        raise UserError("results file", got=f"{path}, which does not exist") from error
    except (OSError, ValueError) as error:
        raise UserError("results file", got=f"{path} ({error})", expected="a results.json") from error
    found = document.get("schema_version") if isinstance(document, dict) else None
    if found is None:
        raise UserError(
            "results file", got=f"{path}, which states no schema_version", expected="a results.json"
        )
    if str(found).partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise UserError(
            f"results file {path}",
            got=f"schema_version {found!r}",
            expected=f"{SCHEMA_VERSION.partition('.')[0]}.x",
            next_step="write it again with `effort-finetune evaluate`",
        )
    problems = list(validate(document))
    if problems:
        raise UserError(f"results file {path}", got=problems[0], expected="what schema.json describes")
    return document


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of results files, with each metric's own bounds and meaning."""
    document = json.loads(files(__package__).joinpath("schema.json").read_text(encoding="utf-8"))
    numbers = {
        name: {
            "$ref": "#/$defs/rate" if metric.upper == 1 else "#/$defs/number",
            "description": metric.meaning,
        }
        for name, metric in TABLE.items()
    }
    metrics = document["$defs"]["metrics"]
    bounded = {name: {"$ref": "#/$defs/interval"} for name, metric in TABLE.items() if metric.has_interval}
    for block, known in (
        (metrics, numbers),
        (document["$defs"]["average"], numbers),
        (metrics["properties"]["ci95"]["properties"]["intervals"], bounded),
    ):
        block["properties"] = {**known, **block["properties"]}
        block["additionalProperties"] = False
    return document


def validate(document: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with a document, nothing if it is right.

    Beside the schema: a ``null`` metric has its reason, and a number has none.
    """
    validator = jsonschema.Draft202012Validator(schema())
    for error in sorted(validator.iter_errors(document), key=lambda e: list(map(str, e.absolute_path))):
        yield f"{'/'.join(map(str, error.absolute_path)) or 'document'}: {error.message[:300]}"
    yield from _unreasoned(document, "")


def _unreasoned(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    if isinstance(reasons := value.get("null_reasons"), Mapping):
        if "values" in value and value["values"] is None:
            numbers: Any = {"get_test_metrics": None}  # the host's function raised as a whole
        else:
            numbers = value.get("intervals", value.get("values", value))
        for name, number in numbers.items() if isinstance(numbers, Mapping) else ():
            if (number is None) != (name in reasons):
                yield f"{path}/{name}: null and its reason go together, got {number!r}"
    for name, child in value.items():
        yield from _unreasoned(child, f"{path}/{name}")
