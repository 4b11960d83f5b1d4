"""Fine-tuning, measuring and scoring from plain Python.

    python -m examples.finetune_in_python HOST NAME WEIGHTS

HOST is a DeepfakeBench checkout, NAME a dataset of its index, WEIGHTS an Effort checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import effort_finetune as ef


def main(root: str, name: str, weights: str, folder: str = "finetuned", **more: object) -> torch.Tensor:
    """Fine-tunes WEIGHTS on NAME, measures the result on its test split and scores four random pictures."""
    host = ef.open_host(root)
    chosen = {"train_dataset": [name], "test_dataset": [name], "nEpochs": 2, **more}
    out = Path(folder)
    settings = host.settings("train", pretrained_weights=weights, output_dir=out / "run", **chosen)
    outcome = ef.finetune(settings, host)

    results = ef.evaluate(settings, host, weights=outcome.best_path, output_dir=out / "evaluation")
    print(f"measured: {results}")
    print(f"layout: {ef.read_checkpoint(outcome.best_path).layout}")

    detector = ef.load_detector(outcome.best_path, settings, device=settings.device)
    with torch.no_grad():
        return detector(
            {"image": torch.randn(4, 3, settings.resolution, settings.resolution)}, inference=True
        )["prob"]


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
