"""Settings that a run of which half is ours would never read: refused by name, none is ignored unsaid."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from effort_finetune.config import Settings
from effort_finetune.config.aliases import key_of_flag
from effort_finetune.core.errors import UserError
from effort_finetune.guest.host_text import parse_file
from effort_finetune.host.ours_alone import OURS_ALONE

#: In both halves the loaders, the optimiser and the batches are the host's, and the test sets choose.
_HOSTS = (
    *("val_dataset", "real_folders", "fake_folders", "folder_samples", "folder_shares", "identity", "limit"),
    *("split", "fit", "faces", "loader", "frame_sampling", "self_blended", "balance", "group_weights"),
    *("group_quotas", "hard_examples", "stages", "micro_batch", "activation_checkpointing"),
    *("offload_activations", "select_on", "optimizer.lr_head", "optimizer.lr_residual"),
    *("optimizer.lr_unfrozen", "optimizer.layer_decay"),
)
#: What the host's own trainer never reads.
_OUR_ENGINES = (
    *("resume", "output_dir", "accumulation_steps", "clip_grad_norm", "early_stopping", "ema_decay"),
    *("lr_warmup", "lr_per", "precision", "tracker"),
)


def refuse_with_host_trainer(settings: Settings, root: Path) -> None:
    """Refuses what the host's own trainer and loaders would not read of our detector's settings.

    Raises:
        UserError: A setting that has another value than it has by itself.
    """
    for key in (*_OUR_ENGINES, *_HOSTS):
        value = attrgetter(key)(settings)
        if value != attrgetter(key)(Settings()) and not _mentioned(key, root):
            raise UserError(
                key,
                got=value,
                expected="no value with the host's own trainer, which does not read it",
                next_step="drop --trainer null (in the YAML: trainer: effort_finetune)",
            )


def refuse_with_host_detector(flags: Mapping[str, Any], name: str, root: Path) -> None:
    """Refuses flags that neither our engine nor the host's detector and loaders would read.

    Args:
        flags: As typed.
        name: Of the host's detector.
        root: The host's.

    Raises:
        UserError: Such a flag.
    """
    for flag, value in flags.items():
        key = key_of_flag(flag)
        unread = next(
            (each for each in (*OURS_ALONE, *_HOSTS, "pretrained_weights") if _is_in(key, each)), None
        )
        if unread is not None and not _mentioned(unread, root):
            raise UserError(
                f"--{flag}",
                got=value,
                expected=f"no such flag for the host's detector {name}: nothing in this run reads it",
                next_step=f"leave it out, or effort-finetune finetune --model_name {name}",
            )


def _is_in(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def _mentioned(key: str, root: Path) -> bool:
    """Whether some file of the host's holds the name as a text of its own, and so may read it."""
    name = key.rpartition(".")[2]
    return any(
        isinstance(node, ast.Constant) and node.value == name
        for path in (root / "training").rglob("*.py")
        if name in path.read_text("utf-8", "replace")
        for node in ast.walk(parse_file(path, root))
    )
