"""What a run says a step will need of memory, against what its step then took.

    python benchmarks/step_memory.py                              # L/14 blocks, 8 frames, 4 layers
    python benchmarks/step_memory.py --layers 1 --frames 2 --output step.json      # does it run?

Each row is a process of its own. The peak is the kernel's, of the step alone: the mark is put back before it
(/proc/self/clear_refs). The share is of what the step adds to what the process held before it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
from run import machine, software
from towers import L14

from effort_finetune.config import resolve
from effort_finetune.core.files import write_json
from effort_finetune.core.precision import resolve_precision
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.saved_activations import recompute_blocks
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.memory_estimate import estimate_memory
from effort_finetune.train.micro_batch import MicroBatch
from effort_finetune.train.optim import build_optimizer

HERE = Path(__file__).parent
CPU = torch.device("cpu")
TARGET = 0.2
WAYS: dict[str, dict[str, Any]] = {
    "residuals": {},
    "residuals, blocks computed again": {"activation_checkpointing": True},
    "residuals, 2 frames at once": {"micro_batch": 2},
    "residuals, bf16": {"precision": "bf16"},
    "the last block alone": {"layer_range": "last"},
    "everything": {"tune_mode": "full"},
}


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    rows = {}
    for name in options.ways:
        flags = WAYS[name]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows[name] = pool.apply(measured, (flags, options.layers, options.frames))
        print(name, rows[name], flush=True)
    document = {
        "schema_version": 1,
        "machine": machine(1, "cpu"),
        "software": software(),
        "setup": f"{options.layers} blocks of L/14, {options.frames} frames, one thread",
        "target": f"within {TARGET:.0%} of the peak",
        "rows": rows,
    }
    write_json(options.output, document)
    return 0


def measured(flags: dict[str, Any], layers: int, frames: int) -> dict[str, Any]:
    """Estimates a step, makes it, and returns both in bytes."""
    torch.set_num_threads(1)
    if flags.get("layer_range") == "last":
        flags = {"layer_range": [layers - 1, layers - 1]}
    settings = resolve(flags={"device": "cpu", **flags}, yaml_path=None, host_defaults={})
    model = EffortFinetuneDetector(settings, tower=random_tower({**L14, "num_hidden_layers": layers}))
    if settings.activation_checkpointing:
        recompute_blocks(model.backbone)
    precision = resolve_precision(flags.get("precision", "float32"), CPU)
    micro = None if settings.micro_batch == "auto" else settings.micro_batch
    loop = TrainingLoop(model, build_optimizer(model, settings), precision, CPU, micro=MicroBatch(micro))
    estimate = estimate_memory(loop, (3, 224, 224))
    assert estimate is not None, "three frames fit"
    batch = {
        "image": torch.randn(frames, 3, 224, 224),
        "label": torch.arange(frames) % 2,
        "index": torch.arange(frames),
    }
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    held = kernel("VmRSS")
    loop.run_epoch([batch, batch], EpochProgress(0))  # the second one with the optimiser's moments
    peak = kernel("VmHWM")
    at_once = min(micro or frames, frames)
    added = estimate.total(at_once) - estimate.held
    return {
        "estimated": estimate.total(at_once),
        "peak": peak,
        "share": estimate.total(at_once) / peak,
        "added_estimated": added,
        "added": peak - held,
        "share_of_added": added / (peak - held),
        "met": abs(estimate.total(at_once) / peak - 1) <= TARGET,
    }


def kernel(name: str) -> int:
    """Returns a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{os.getpid()}/status has no {name}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "step_memory.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
