"""Measures what the design promises about speed and size, as ratios in one run, into one JSON file.

    python benchmarks/run.py                                  # all rows, some minutes on 2 cores
    python benchmarks/run.py --rows training_step --repeats 3
    python benchmarks/run.py --device cuda --batch 32 --layers 24
    python benchmarks/run.py --quick --output quick.json  # one layer, one repeat: does it run?

Ratios of interleaved medians are what to read; seconds depend on the machine and on its other work.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rows_data
import rows_files
import rows_head
import rows_model
import rows_processes
import rows_statistics
import torch

import effort_finetune
from effort_finetune.core.device import device_name
from effort_finetune.core.files import write_json

ROWS = {
    "decomposition": rows_model.decomposition,
    "training_step": rows_model.training_step,
    "evaluation": rows_model.evaluation,
    "paper_losses": rows_model.paper_losses,
    "peft": rows_model.peft,
    "start_up": rows_files.start_up,
    "adapter_size": rows_files.adapter_size,
    "loading": rows_data.loading,
    "head_only": rows_head.head_only,
    "frozen_prefix": rows_head.frozen_prefix,
    "two_processes": rows_processes.two_processes,
    "bootstrap": rows_statistics.bootstrap,
}
HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    document: dict[str, Any] = {
        "schema_version": 1,
        "machine": machine(options.threads, options.device),
        "software": software(),
        "options": {k: v for k, v in vars(options).items() if k not in ("output", "rows")},
        "load_average_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rows": {},
    }
    path = options.output or HERE / "results" / f"{slug(document['machine'])}.json"
    for name in options.rows:
        torch.manual_seed(0)
        found = list(ROWS[name](options))
        document["rows"][name] = found
        for one in found:
            print(line(one), flush=True)
        write_json(path, document)  # after every row: an interrupted run keeps what it measured
    print(f"written: {path.name}")
    return 0


def line(one: dict[str, Any]) -> str:
    if "skipped" in one:
        return f"skipped          {one['what']}: {one['skipped']}"
    mark = "met   " if one["met"] else "MISSED"
    return f"{mark} {one['ratio']:8.3f}  (target {one['target']})  {one['what']}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5, help="timed turns")
    parser.add_argument("--layers", type=int, default=4, help="blocks of ViT-L/14 in step and evaluation")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--matrices", type=int, default=8, help="sample of the 96 matrices")
    parser.add_argument("--start-up-layers", type=int, default=24)
    parser.add_argument("--videos", type=int, default=16, help="of each class in loading, 16 frames each")
    parser.add_argument(
        "--device", default="cpu", help="of step, evaluation, losses and PEFT: cpu, cuda or mps"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu, with --threads 1, on a busy machine"
    )
    parser.add_argument("--output", type=Path, help="default: results/<processor>.json beside this file")
    parser.add_argument("--quick", action="store_true", help="one layer, one repeat: figures mean nothing")
    options = parser.parse_args(argv)
    if options.quick:
        options.repeats = options.layers = options.start_up_layers = 1
        options.batch = options.matrices = options.videos = 2
    return options


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    flags = ""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*:\s*(.+)", text)[1].strip()
        flags = re.search(r"flags\s*:\s*(.+)", text)[1]
    except (OSError, TypeError):
        pass  # not Linux, or a processor that names itself differently: the platform's word stands
    bf16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()]
    found = {"processor": model, "cores": os.cpu_count(), "threads": threads, "bf16": bf16}
    return found if device == "cpu" else found | {"accelerator": device_name(torch.device(device))}


def software() -> dict[str, Any]:
    found: dict[str, Any] = {
        "effort_finetune": effort_finetune.__version__,
        "python": platform.python_version(),
    }
    for package in ("torch", "transformers", "peft", "albumentations", "lmdb"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    found["commit"] = git("rev-parse", "HEAD") or None
    found["dirty"] = bool(git("status", "--porcelain", "--", "../plugin", "."))
    return found


def slug(found: dict[str, Any]) -> str:
    name = found.get("accelerator", found["processor"])
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)", "", name).lower())
    return "-".join(words if "accelerator" in found else [*words, str(found["cores"]), "cores"])


if __name__ == "__main__":
    sys.exit(main())
