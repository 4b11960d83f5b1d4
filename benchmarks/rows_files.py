"""Rows about files: start-up from an Effort checkpoint and from CLIP, size of an adapter."""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timing import interleaved, row
from towers import L14

from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.reader import read_checkpoint

Row = dict[str, Any]


def start_up(options: Namespace) -> Iterator[Row]:
    """From an Effort checkpoint to a model that can score, against reading the file's tensors once."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        clip, effort = Path(folder) / "clip.pth", Path(folder) / "effort.pth"
        tower = random_tower({**L14, "num_hidden_layers": options.start_up_layers})
        torch.save({f"vision_model.{k}": v for k, v in tower.state_dict().items()}, clip)
        torch.save(EffortFinetuneDetector({}, tower=tower).state_dict(), effort)
        del tower

        def read() -> Any:
            return torch.load(effort, map_location="cpu", weights_only=True)

        measured = interleaved(
            {
                "read_the_file": read,
                "effort_checkpoint_to_model": lambda: EffortFinetuneDetector(
                    {"pretrained_weights": str(effort)}
                ),
                "clip_to_model_cached": lambda: EffortFinetuneDetector({"clip_path": str(clip)}),
            },
            repeats=options.repeats,  # on the wall clock: the file is hashed in a thread beside
        )
        size = effort.stat().st_size
    ratio = measured["effort_checkpoint_to_model"]["median_s"] / measured["read_the_file"]["median_s"]
    yield row(
        "from an Effort checkpoint to a ready model, over reading the file",
        ratio,
        target="<= 1.5",
        met=ratio <= 1.5,
        measured={**measured, "file_bytes": size},
        setup=f"{options.start_up_layers} layers of ViT-L/14, {size / 1e9:.2f} GB, page cache warm, "
        "SHA-256 of the file included",
    )


def adapter_size(options: Namespace) -> Iterator[Row]:
    """An adapter of the full ViT-L/14 at k = 1, against the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        full, adapter = Path(folder) / "effort.pth", Path(folder) / "adapter.safetensors"
        tower = random_tower({**L14, "num_hidden_layers": options.start_up_layers})
        detector = EffortFinetuneDetector({}, tower=tower)
        torch.save(detector.state_dict(), full)
        state = {k: v.detach().clone() for k, v in detector.state_dict().items()}
        for name in detector.trainable.names:
            state[name] += 1e-3 * torch.randn_like(state[name])
        save_adapter(adapter, state, read_checkpoint(full), base_name="effort.pth")
        sizes = {"adapter_bytes": adapter.stat().st_size, "checkpoint_bytes": full.stat().st_size}
    yield row(
        "adapter file in megabytes",
        sizes["adapter_bytes"] / 1e6,
        target="<= 1",
        met=sizes["adapter_bytes"] <= 1e6,
        measured={**sizes, "trained_parameters": detector.trainable.trainable},
        setup=f"{options.start_up_layers} layers of ViT-L/14, k = 1, attention",
    )
