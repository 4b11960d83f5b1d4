"""Checkpoints of a run: ``ckpt_last.pth`` to go on from, ``ckpt_best.pth`` to use.

Both are written atomically, so a process killed at any moment leaves the last good file.
``ckpt_last.pth`` holds tensors and plain containers only: it loads with ``weights_only=True``,
and every reader of weights can open it as ``{'model': state dict, ...}``.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import atomic_write
from effort_finetune.weights.layouts import LOSS_LEAF
from effort_finetune.weights.vision_config import of_state, stating

LAST_NAME = "ckpt_last.pth"
BEST_NAME = "ckpt_best.pth"
FORMAT = "effort_finetune.train/2"

# Settings that may differ between a run and its continuation: they change where, how fast, how
# long or on what is reported, not the steps that are taken.
FREE_SETTINGS = frozenset(
    {
        *("resume", "output_dir", "log_dir", "save_to", "save_epoch", "rec_iter"),
        *("nEpochs", "test_dataset", "test_batchSize", "bootstrap_samples", "max_missing_rate"),
        *("device", "workers", "early_stopping", "allow_pickle", "allow_base_mismatch"),
        *("trainer",),
        *("pretrained_weights", "clip_path", "lmdb_dir", "rgb_dir", "dataset_json_folder"),
    }
)


def save_best(path: Path, model: nn.Module) -> Path:
    """Writes the plain state dict, ``backbone.*`` and ``head.*``: DeepfakeBench's own layout.

    Raises:
        RunFailure: If it cannot be written.
    """
    state = model.state_dict()
    tensors = {
        name: tensor.detach().cpu()
        for name, tensor in state.items()
        if not name.endswith(f".{LOSS_LEAF}")  # a reference of a loss, which DeepfakeBench would refuse
    }
    return _save(path, stating(tensors, of_state(state, "model")))


def _save(path: Path, obj: Any) -> Path:
    try:
        return atomic_write(path, lambda temporary: torch.save(obj, temporary))
    except (OSError, RuntimeError) as error:  # torch's writer raises the second when the disk is full
        reason = " ".join(str(error).split())[:200]
        raise RunFailure(
            f"{path} could not be written ({reason}); the file before it, if any, is whole; "
            "next: make room and go on with --resume"
        ) from error


def carry_best(folder: Path, target: Path) -> None:
    """Brings the selected weights of a resumed run into its new folder; nothing to do in the old one.

    Raises:
        UserError: If they are gone: no later epoch could be compared with them.
    """
    source = folder / BEST_NAME
    if not source.is_file():
        raise UserError(
            "--resume",
            got=f"{folder} without its {BEST_NAME}",
            expected="the run's folder as it was left",
            next_step="start a new run from its last weights with --pretrained_weights",
        )
    if source.resolve() != target.resolve():
        atomic_write(target, lambda temporary: shutil.copyfile(source, temporary))


def save_last(path: Path, *, model: nn.Module, settings: Mapping[str, Any], state: Mapping[str, Any]) -> Path:
    """Writes everything a run needs to go on exactly as if it had not stopped.

    Args:
        path: The file.
        model: The model, saved under ``model``.
        settings: ``Settings.to_dict()`` of the run, saved under ``settings``.
        state: What else is to be saved: tensors and plain containers.

    Raises:
        RunFailure: If it cannot be written.
    """
    document = {
        "format": FORMAT,
        "model": model.state_dict(),
        "settings": dict(settings),
        "rng": rng_state(),
        **state,
    }
    return _save(path, document)


def folder_of(resume: Path | str) -> Path:
    """Returns the run folder that ``resume`` names, by itself or by a checkpoint in it."""
    path = Path(resume)
    return path if path.is_dir() else path.parent


def state_file(resume: Path | str) -> Path:
    """Returns the file that ``resume`` names, by itself or by its run folder.

    Raises:
        UserError: If it does not exist.
    """
    path = Path(resume)
    path = path / LAST_NAME if path.is_dir() else path
    if not path.is_file():
        raise UserError("--resume", got=f"{path}, which does not exist", expected=f"a run's {LAST_NAME}")
    return path


def load_last(path: Path | str) -> dict[str, Any]:
    """Reads a ``ckpt_last.pth``, or that of a run folder, onto the CPU.

    Raises:
        UserError: If there is no such file or it is not one of ours.
    """
    path = state_file(path)
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a file it cannot read
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            "--resume", got=f"{path}, which cannot be read ({reason})", expected=f"a run's {LAST_NAME}"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(
            "--resume",
            got=f"{path}, which holds no training state of this version",
            expected=f"a run's {LAST_NAME}",
            next_step="to start a new run from these weights use --pretrained_weights",
        )
    return document


def check_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on under settings that would make a different run.

    Raises:
        UserError: Naming every setting that differs and may not.
    """
    free = FREE_SETTINGS - ({"test_dataset"} if saved.get("select_on") == "test" else set())
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
    """Yields every setting by its path, without the copies of ``optimizer`` that hosts read."""
    for name, value in tree.items():
        if not isinstance(value, Mapping):
            yield (*at, name), value
        elif at != ("optimizer",):
            yield from _leaves(value, (*at, name))


def restore(
    saved: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    scaler: torch.amp.GradScaler,
) -> None:
    """Puts the saved tensors back: weights, optimiser, schedule and gradient scaler.

    Raises:
        UserError: If they are those of another model.
    """
    try:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise UserError(
            "--resume",
            got="a checkpoint of another model",
            expected=f"this run's ({' '.join(str(error).split())[:300]})",
        ) from error
    if scheduler is not None:
        scheduler.load_state_dict(saved["scheduler"])
    scaler.load_state_dict(saved["scaler"])


def rng_state() -> dict[str, Any]:
    """Returns the state of Python's, numpy's and torch's generators as plain data."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Puts back what :func:`rng_state` returned; devices that are not here are passed over."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.backends.mps.is_available() and isinstance(state["mps"], Tensor):
        torch.mps.set_rng_state(state["mps"])
