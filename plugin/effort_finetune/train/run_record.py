"""What a run says about itself: log lines, ``settings.yaml`` and the ``training`` block of the results."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from effort_finetune.core.device import device_name, memory_report
from effort_finetune.core.files import sha256_file, write_text
from effort_finetune.evaluate import results as results_file
from effort_finetune.evaluate.dataset_results import DatasetResults
from effort_finetune.evaluate.table import results_table
from effort_finetune.train.data import selection_names, selection_warnings
from effort_finetune.train.features import FrameFeatures

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host
    from effort_finetune.train.data import RunData
    from effort_finetune.train.run_files import RunPaths
    from effort_finetune.train.session import Session
    from effort_finetune.train.setup import Prepared


def write_settings(path: Path, settings: Settings) -> Path:
    """Writes the resolved settings, complete, as a file ``--detector_config`` accepts."""
    text = yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True)
    return write_text(path, f"# Resolved settings of a fine-tuning run; digest {settings.digest()}\n{text}")


def log_data(logger: logging.Logger, data: RunData, settings: Settings) -> None:
    """Logs what is trained, selected and tested on."""
    real, fake = data.counts
    videos = len({row.video for row in data.train.rows})
    frames, batches = len(data.train.rows), len(data.loader)
    step = settings.train_batchSize * settings.accumulation_steps
    logger.info(
        "training on %s: %d frames (%d real, %d fake) of %d videos",
        *(", ".join(settings.train_dataset), frames, real, fake, videos),
    )
    logger.info(
        "an epoch: %d batches of %d frames or fewer, %d steps of %d or fewer",
        *(batches, min(settings.train_batchSize, frames)),
        *(math.ceil(batches / settings.accumulation_steps), min(step, frames)),
    )
    if not (real and fake):
        logger.warning("all training frames are of one class: the detector can only learn to say it always")
    chosen = ", ".join(selection_names(settings)) or "nothing: the last epoch is taken"
    logger.info("checkpoint chosen on %s: %s", settings.select_on, chosen)
    if settings.select_on == "test":
        logger.warning("select_on 'test' is an oracle: the test numbers of this run are labelled so")
    for warning in selection_warnings(settings, data):
        logger.warning("%s", warning)
    logger.info("test: %s", ", ".join(settings.test_dataset) or "no test_dataset given, nothing is tested")


def write_results(
    session: Session,
    prepared: Prepared,
    host: Host,
    *,
    tested: DatasetResults,
    failure: str | None,
    timings: Mapping[str, float],
    command: Sequence[str],
) -> dict[str, Any]:
    """Writes ``results.json``, of a finished run or of what there is of a failed one.

    Args:
        session: The run.
        prepared: What it began with.
        host: The host.
        tested: Test results; empty without test datasets.
        failure: Why the run did not finish; ``None`` if it did.
        timings: Seconds by phase; ``total_s`` over all processes of a resumed run.
        command: The command line.

    Returns:
        The document.
    """
    best = session.paths.best
    measured = None
    if best in session.written:
        measured = {"path": str(best), "sha256": sha256_file(best), "layout": "deepfakebench"}
    document = results_file.build(
        kind="finetuning",
        settings=session.settings,
        host=host,
        results=tested,
        checkpoint=measured,
        device=prepared.device,
        autocast=prepared.precision.dtype,
        timings=timings,
        command=command,
        status="complete" if failure is None else "failed",
        reason=failure,
        training=training_block(session, prepared, published=failure is None),
    )
    results_file.write(session.paths.results, document)
    return document


def training_block(session: Session, prepared: Prepared, *, published: bool) -> dict[str, Any]:
    """Returns the ``training`` block of the results.

    Args:
        session: The run.
        prepared: What it began with.
        published: Whether the selected checkpoint was put at ``save_to``, if there is one.
    """
    settings, model, data = session.settings, session.model, session.data
    real, fake = data.counts
    return {
        "epochs": {
            "asked": settings.nEpochs,
            "done": len(session.history),
            "stopped_early": session.stopped_early,
        },
        "history": session.history,
        "selection": {
            **session.selector.report(selection_names(settings)),
            "protocol": {name: frames.protocol for name, frames in data.selection.items()},
            "warnings": selection_warnings(settings, data),
        },
        "trainable": {
            "trainable": model.trainable.trainable,
            "total": model.trainable.total,
            "by_group": model.trainable.by_group,
        },
        "decomposition": {
            "layers": len(model.status.layers),
            "blocks": list(model.status.blocks),
            "ranks": list(model.status.ranks),
            "residual_parameters": model.status.residual_parameters,
        },
        "start_weights": session.start_weights,
        "data": {
            "frames": len(data.train.rows),
            "frames_real": real,
            "frames_fake": fake,
            "videos": len({row.video for row in data.train.rows}),
            "batches_per_epoch": len(data.loader),
            "order": _ORDER[settings.balance],
            "features": "computed once" if isinstance(data.loader.dataset, FrameFeatures) else "every epoch",
            "protocol": data.train.protocol,
        },
        "seeds": {"manualSeed": settings.manualSeed, "generators": ["python", "numpy", "torch"]},
        "precision": prepared.precision.to_dict(),
        "device": device_name(prepared.device),
        "memory": memory_report(prepared.device),
        "resumed_from": settings.resume,
        "processes": session.processes.to_list(),
        "published": str(session.paths.published) if published and session.paths.published else None,
    }


def log_outcome(logger: logging.Logger, paths: RunPaths, document: Mapping[str, Any]) -> None:
    """Logs what was selected, what it scored and where everything is."""
    selection = document["training"]["selection"]
    value = "" if selection["value"] is None else f", {selection['metric']} {selection['value']:.4f}"
    logger.info("selected: epoch %d on %s%s", selection["epoch"], selection["select_on"], value)
    if selection["note"]:
        logger.warning("%s", selection["note"])
    if document["datasets"]:
        oracle = " (oracle: these labels chose the checkpoint)" if selection["oracle"] else ""
        logger.info("test%s\n%s", oracle, results_table(document))
    for what, path in {
        "results": paths.results,
        "checkpoint": paths.best,
        "published": paths.published,
    }.items():
        if path is not None:
            logger.info("%s: %s", what, path)


_ORDER = {
    "none": "shuffled, every frame once an epoch",
    "oversample": "drawn with replacement, both classes equally often",
}
