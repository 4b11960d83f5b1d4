"""Test a detector: ``python training/test.py --detector_path training/config/detector/meso4.yaml
--weights_path FILE``.

Every setting of the YAML files can be given as a flag, dotted where it is nested.
"""

from __future__ import annotations

# >>> effort-finetune
import importlib.util
if importlib.util.find_spec('effort_finetune'):
    from effort_finetune.guest import take_over
    take_over(__file__, __name__)
# <<< effort-finetune
import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from config.errors import SettingError, run_command
from config.loader import find_path, load_config, parse_overrides
from trainer.checkpoint import ensure_writable, write_atomically
from trainer.device import choose_device
from trainer.inference import predict, scalars, score
from trainer.setup import build_model, split_loader
from trainer.trainer import mean_of

COLUMNS = ("auc", "eer", "ap", "acc", "video_auc", "video_eer", "video_acc")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that are no settings of a YAML file, and of the common ones that are."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--detector_path", required=True, help="the detector's YAML")
    parser.add_argument("--test_dataset", nargs="+", help="test datasets, over the YAML's")
    parser.add_argument("--weights_path", required=True, help="checkpoint to test")
    parser.add_argument("--output_json", type=Path, help="write the metrics to this file")
    return parser


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Format metrics by dataset as a table; what cannot be computed is a dash."""
    width = max(len(name) for name in ("dataset", *results))
    lines = ["  ".join([f"{'dataset':<{width}}", *(f"{column:>9}" for column in COLUMNS)])]
    for name, metrics in results.items():
        cells = ["-" if metrics.get(column) is None else f"{metrics[column]:.4f}" for column in COLUMNS]
        lines.append("  ".join([f"{name:<{width}}", *(f"{cell:>9}" for cell in cells)]))
    return "\n".join(lines)


def test(arguments: Sequence[str]) -> int:
    """Run a whole test; returns the exit code."""
    known, rest = build_parser().parse_known_args(arguments)
    weights = find_path(known.weights_path).absolute()
    if not weights.exists():  # a folder too: what it may hold is the detector's to say
        raise SettingError(f"weights file {weights} not found")
    overrides = {**parse_overrides(rest), "pretrained_weights": str(weights)}
    if known.test_dataset:
        overrides["test_dataset"] = known.test_dataset
    config = load_config(known.detector_path, "test", overrides)
    if not config.get("test_dataset"):
        raise SettingError("no test dataset; give --test_dataset NAME ...")
    torch.backends.cudnn.benchmark = bool(config.get("cudnn"))

    loaders = {name: split_loader(config, name, "test") for name in config["test_dataset"]}
    if known.output_json:
        ensure_writable(known.output_json.absolute().parent)
    device = choose_device(config.get("device") or "auto")
    model = build_model(config).to(device)
    model.device = device

    results: dict[str, dict[str, Any]] = {}
    for name, loader in loaders.items():
        predictions = predict(model, loader, device, desc=name)
        results[name] = scalars(score(predictions, loader.dataset))
    rows = {**results, "avg": mean_of(results)} if len(results) > 1 else results
    print(table(rows))
    if known.output_json:
        counts = {
            name: {"frames": len(loader.dataset), "videos": len(set(loader.dataset.video_name_list))}
            for name, loader in loaders.items()
        }
        content = {
            "model_name": config["model_name"],
            "weights_path": str(weights),
            "datasets": {name: {**metrics, **counts[name]} for name, metrics in results.items()},
            "avg": mean_of(results),
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        write_atomically(known.output_json, lambda path: path.write_text(text, encoding="utf-8") and None)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(test, sys.argv[1:]))
