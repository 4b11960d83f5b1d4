"""What has to be the same for a run to go on: settings, frames, epochs and the shape of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from effort_finetune.config.key_table import known_keys
from effort_finetune.core.errors import UserError
from effort_finetune.train.schedule import Schedule

# Settings that may differ between a run and its continuation: they change where, how fast, how
# long or on what is reported, not the steps that are taken.
FREE_SETTINGS = frozenset(
    {
        *("resume", "output_dir", "log_dir", "save_to", "save_ckpt", "save_epoch", "rec_iter"),
        "tracker",
        *("nEpochs", "test_dataset", "test_batchSize", "bootstrap_samples", "max_missing_rate"),
        *("device", "workers", "early_stopping", "allow_pickle", "allow_base_mismatch"),
        *("trainer", "micro_batch", "activation_checkpointing", "offload_activations"),
        *("pretrained_weights", "clip_path", "lmdb_dir", "rgb_dir", "dataset_json_folder"),
    }
)


def check_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on under settings that would make a different run.

    Raises:
        UserError: Naming every setting that differs and may not.
    """
    free = FREE_SETTINGS - ({"test_dataset"} if saved.get("select_on") == "test" else set())
    free -= {"nEpochs"} if saved.get("lr_scheduler") == "onecycle" else set()  # it goes over all of them
    current = dict(_leaves(now))
    differing = [
        f"{'.'.join(path)} {current[path]!r} instead of {value!r}"
        for path, value in _leaves(saved)
        if path in current and path[0] not in free and value != current[path]
    ]
    if differing:
        raise UserError(
            "--resume",
            got=", ".join(differing),
            expected="the settings of the run that is resumed",
            next_step="drop these changes, or start a new run with --pretrained_weights",
        )


def check_frames(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuses to go on with other frames: order and choice of the checkpoint would be those of no run.

    Args:
        saved: What :meth:`effort_finetune.train.data.RunData.digests` was.
        now: What it is.

    Raises:
        UserError: Naming what differs.
    """
    differing = [name for name, digest in saved.items() if now.get(name) != digest]
    if differing:
        raise UserError(
            "--resume",
            got=f"other {' and other '.join(differing)} than the run that is resumed",
            expected="the same index of the datasets",
            next_step="put it back, or start a new run from these weights with --pretrained_weights",
        )


def check_epochs(saved: Mapping[str, Any], start: int, asked: int) -> None:
    """Refuses to go on to fewer epochs than are done: the record would be of more than was asked for.

    Raises:
        UserError: If more than ``asked`` epochs, counted from ``start``, are done.
    """
    done = saved["epoch"] - start
    if done > asked:
        raise UserError("nEpochs", got=asked, expected=f"at least {done}, which are done")


def _leaves(tree: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields every setting by its path, without the copies of ``optimizer`` that hosts read.

    A setting that is a mapping, such as ``group_weights``, is one whole; ``label_dict`` may grow, and which
    frames it labels is another check.
    """
    whole = known_keys().keys() - {"label_dict"}
    for name, value in tree.items():
        if not isinstance(value, Mapping) or ".".join((*at, name)) in whole:
            yield (*at, name), value
        elif at != ("optimizer",):
            yield from _leaves(value, (*at, name))


def restore(
    saved: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    scaler: torch.amp.GradScaler,
) -> None:
    """Puts the saved tensors back: what training changed, optimiser, schedule and gradient scaler.

    Raises:
        UserError: If they are those of another model or optimiser.
    """
    changing = saved["changing"]
    try:
        lacking = model.load_state_dict(changing, strict=False)
        if unknown := lacking.unexpected_keys:
            raise ValueError(f"unknown weights {', '.join(unknown[:4])}")
        # What is frozen comes from the base; what is trained has to be in the state.
        if absent := [
            n for n, p in model.named_parameters() if p.requires_grad and n in lacking.missing_keys
        ]:
            raise ValueError(f"no weights for {', '.join(absent[:4])}")
        optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise UserError(
            "--resume",
            got="a checkpoint of another model",
            expected=f"this run's ({' '.join(str(error).split())[:300]})",
        ) from error
    schedule.load_state_dict(saved["scheduler"])
    scaler.load_state_dict(saved["scaler"])
