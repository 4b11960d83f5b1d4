"""What a run says about itself: log lines, ``settings.yaml`` and the ``training`` block of the results."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from effort_finetune.core.crop_recipe import recipes_in, stated
from effort_finetune.core.device import device_name, memory_report
from effort_finetune.core.files import write_text
from effort_finetune.evaluate import results as results_file
from effort_finetune.evaluate.dataset_results import DatasetResults
from effort_finetune.evaluate.protocol import data_lines
from effort_finetune.evaluate.run_folder import SETTINGS_MARK
from effort_finetune.evaluate.table import results_table
from effort_finetune.model.chosen_detector import LAYOUT
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.broken_step import BrokenStep
from effort_finetune.train.data import selection_names, selection_warnings
from effort_finetune.train.features import FrameFeatures
from effort_finetune.train.guards import findings
from effort_finetune.train.validation import choice_warnings, class_videos

if TYPE_CHECKING:
    from torch import nn

    from effort_finetune.config import Settings
    from effort_finetune.core.errors import RunFailure
    from effort_finetune.train.data import RunData
    from effort_finetune.train.run_files import RunPaths
    from effort_finetune.train.selection import Selector
    from effort_finetune.train.setup import Prepared


def write_settings(path: Path, settings: Settings) -> Path:
    """Writes the resolved settings, complete, as a file ``--detector_config`` accepts."""
    text = yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True)
    return write_text(path, f"{SETTINGS_MARK} a fine-tuning run; digest {settings.digest()}\n{text}")


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
    for dataset in (data.train, *data.selection.values(), *data.test.values()):
        for line in data_lines(dataset):
            logger.info("%s: %s", dataset.protocol["split"], line)
    if len(recipes := recipes_in(stated(data.train.recipes()))) > 1:
        logger.warning("the training data were cut by several recipes: %s", "; ".join(map(str, recipes)))
    logger.info(
        "an epoch: %d batches of %d frames or fewer, %d steps of %d or fewer",
        *(batches, min(settings.train_batchSize, frames)),
        *(math.ceil(batches / settings.accumulation_steps), min(step, frames)),
    )
    if "self_blended" in data.train.protocol:
        logger.info(
            "%(frames)d of them are self-blended: %(stored_landmarks)d with landmarks beside their frame, "
            "%(found_landmarks)d by finder %(finder)s; %(without_face)d frames without a face have none",
            data.train.protocol["self_blended"],
        )
    for unit in data.sampling["epoch"] or ():
        logger.info("an epoch takes %(drawn)d of %(frames)d frames of %(name)s", unit)
    if settings.hard_examples:
        logger.info(
            "from the second epoch on, %g %% of its frames are drawn by their last loss",
            100 * settings.hard_examples,
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
    prepared: Prepared,
    *,
    tested: DatasetResults,
    failure: RunFailure | None,
    published: Path | None,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Writes ``results.json``, of a finished run or of what there is of a failed one.

    Args:
        prepared: The run.
        tested: Test results; empty without test datasets.
        failure: Why the run did not finish, and what caused that; ``None`` if it did.
        published: Where the selected checkpoint was put beside the run folder.
        timings: Seconds by phase; ``total_s`` over all processes of a resumed run.

    Returns:
        The document.
    """
    job, paths, sha256 = prepared.job, prepared.paths, prepared.engine.best_sha256
    document = results_file.build(
        kind="finetuning",
        settings=job.settings,
        host=job.host,
        results=tested,
        checkpoint=None
        if sha256 is None
        else {
            "path": str(paths.best),
            "sha256": sha256,
            "layout": "deepfakebench" if prepared.chosen.is_ours else LAYOUT,
            **prepared.chosen.to_dict(),
        },
        device=prepared.device,
        autocast=prepared.precision.dtype,
        timings=timings,
        command=job.command,
        status="complete" if failure is None else "failed",
        reason=None if failure is None else str(failure),
        training=training_block(prepared, published=published, failure=failure),
    )
    if job.part is not None and job.part.folder == paths.folder:
        whole = job.part.whole
        document |= {"settings": whole.to_dict(), "settings_digest": whole.digest()}
    results_file.write(paths.results, document)
    return document


def training_block(
    prepared: Prepared, *, published: Path | None, failure: RunFailure | None
) -> dict[str, Any]:
    """Returns the ``training`` block of the results.

    Args:
        prepared: The run.
        published: Where the selected checkpoint was put beside the run folder.
        failure: Why the run did not finish.
    """
    cause = None if failure is None else failure.__cause__
    broken = [cause.finding()] if isinstance(cause, BrokenStep) else []
    job, model, data = prepared.job, prepared.model, prepared.data
    settings, engine = job.settings, prepared.engine
    real, fake = data.counts
    return {
        "epochs": {
            "asked": settings.nEpochs,
            "done": len(engine.history),
            "stopped_early": engine.stopped_early,
        },
        "stage": None if job.part is None else job.part.number,
        "earlier_stages": [] if job.part is None else [dict(stage) for stage in job.part.earlier],
        "start": engine.start,
        "history": engine.history,
        "gain": gain(engine.start, engine.history, engine.selector),
        "findings": [*findings(engine.watched()), *broken],
        "samples_per_second": samples_per_second(engine.history),
        "selection": {
            **engine.selector.report(selection_names(settings)),
            "protocol": {name: frames.protocol for name, frames in data.selection.items()},
            "warnings": [
                *selection_warnings(settings, data),
                *choice_warnings(engine.selector, engine.start, engine.history, class_videos(data.selection)),
            ],
        },
        **_parts(model),
        "start_weights": engine.start_weights,
        "data": {
            "frames": len(data.train.rows),
            "frames_real": real,
            "frames_fake": fake,
            "videos": len({row.video for row in data.train.rows}),
            "batches_per_epoch": len(data.loader),
            "order": data.order or _ORDER[settings.balance],
            "sampling": None if data.order else data.sampling,
            "features": "computed once" if isinstance(data.loader.dataset, FrameFeatures) else "every epoch",
            "protocol": data.train.protocol,
        },
        "seeds": {"manualSeed": settings.manualSeed, "generators": ["python", "numpy", "torch"]},
        "precision": prepared.precision.to_dict(),
        "device": device_name(prepared.device),
        "memory": {
            **memory_report(prepared.device),
            "estimate": engine.memory,
            "micro_batch": engine.loop.micro.state_dict(),
        },
        "resumed_from": settings.resume,
        "processes": engine.processes.to_list(),
        "published": None if published is None else str(published),
    }


def _parts(model: nn.Module) -> dict[str, Any]:
    """What of the model is trained, and what of it is decomposed: nothing of a host's detector."""
    if isinstance(model, EffortFinetuneDetector):
        trained, status = model.trainable, model.status
        groups, layers, blocks, ranks = trained.by_group, len(status.layers), status.blocks, status.ranks
        learning, total, residual = trained.trainable, trained.total, status.residual_parameters
    else:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        learning, total = sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)
        groups, layers, blocks, ranks, residual = {"all": learning}, 0, (), (), 0
    return {
        "trainable": {
            "trainable": learning,
            "total": total,
            "share": learning / total,
            "by_group": dict(groups),
        },
        "decomposition": {
            "layers": layers,
            "blocks": list(blocks),
            "ranks": list(ranks),
            "residual_parameters": residual,
        },
    }


def gain(
    start: Mapping[str, Any] | None, history: Sequence[Mapping[str, Any]], selector: Selector
) -> dict[str, Any]:
    """Returns how much of what a run gained it had gained after each epoch.

    The whole gain is the selected epoch's value less that of the weights before the first step.

    Args:
        start: What those scored; ``None`` where nothing was measured.
        history: The epochs.
        selector: The metric and the selected epoch.

    Returns:
        ``metric, start, selected, share_by_epoch``; a share is ``null`` where a value is missing, and all are
        where nothing was gained.
    """
    first: float | None = None if start is None else start["selection_value"]
    best: float | None = None if selector.best is None else selector.best["value"]
    values = [entry["selection_value"] for entry in history]
    whole = None if first is None or best is None else best - first
    gained = whole is not None and (whole > 0 if selector.higher_is_better else whole < 0)
    shares = [
        (value - first) / whole if gained and whole and first is not None and value is not None else None
        for value in values
    ]
    return {"metric": selector.metric, "start": first, "selected": best, "share_by_epoch": shares}


def samples_per_second(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the frames trained on per second of training, over all epochs."""
    seconds = sum(entry["train"]["seconds"] for entry in history)
    return sum(entry["train"]["samples"] for entry in history) / seconds if seconds else None


def log_outcome(logger: logging.Logger, paths: RunPaths, document: Mapping[str, Any]) -> None:
    """Logs what was selected, what it scored and where everything is."""
    selection = document["training"]["selection"]
    value = "" if selection["value"] is None else f", {selection['metric']} {selection['value']:.4f}"
    logger.info("selected: epoch %d on %s%s", selection["epoch"], selection["select_on"], value)
    for warning in (selection["note"], *selection["warnings"]):
        if warning:
            logger.warning("%s", warning)
    if document["datasets"]:
        oracle = " (oracle: these labels chose the checkpoint)" if selection["oracle"] else ""
        logger.info("test%s\n%s", oracle, results_table(document))
    for what, path in {
        "results": paths.results,
        "checkpoint": paths.best,
        "published": paths.published,
    }.items():
        if path == paths.results or (path is not None and document["settings"]["save_ckpt"]):
            logger.info("%s: %s", what, path)


_ORDER = {
    "none": "shuffled, every frame once an epoch",
    "oversample": "both classes equally often, each frame again only when all others came",
    "group": "both classes equally often, in each its label groups by weight",
    "dataset": "datasets by weight, in each both classes equally often",
}
