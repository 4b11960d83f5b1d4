"""Test a detector: ``python training/test.py --detector_path YAML --weights_path FILE --test_dataset A``."""

from __future__ import annotations

# >>> effort-finetune
import importlib.util
if importlib.util.find_spec('effort_finetune'):
    from effort_finetune.guest import take_over
    take_over(__file__, __name__)
# <<< effort-finetune
import argparse
import sys

import torch
from config.loader import HostError, load_config
from dataset.abstract_dataset import DeepfakeAbstractBaseDataset
from detectors import DETECTOR
from metrics.registry import RegistryError
from torch.utils.data import DataLoader
from trainer.trainer import device, scalars, test_one_dataset

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--detector_path", required=True, help="the detector's YAML")
parser.add_argument("--test_dataset", nargs="+", help="test datasets, over the YAML's")
parser.add_argument("--weights_path", required=True, help="checkpoint to test: a state dict")


def prepare_testing_data(config: dict) -> dict[str, DataLoader]:
    """Return a loader of each test set, in its own order."""
    loaders = {}
    for name in config["test_dataset"]:
        dataset = DeepfakeAbstractBaseDataset({**config, "test_dataset": name}, "test")
        loaders[name] = DataLoader(
            dataset,
            batch_size=config["test_batchSize"],
            num_workers=config["workers"],
            collate_fn=dataset.collate_fn,
        )
    return loaders


def main() -> None:
    """Run a whole test and print its metrics."""
    args = parser.parse_args()
    config = load_config(args.detector_path, "test")
    config["test_dataset"] = args.test_dataset or config["test_dataset"]
    loaders = prepare_testing_data(config)
    model = DETECTOR[config["model_name"]](config).to(device)
    try:
        state = torch.load(args.weights_path, map_location=device, weights_only=True)
        model.load_state_dict(state, strict=True)
    except Exception as error:  # torch reports a damaged or foreign file by whatever its reader met
        raise HostError(f"{args.weights_path} is no checkpoint of {config['model_name']}: {error}") from error
    for name, loader in loaders.items():
        print(f"dataset: {name}")
        for metric, value in scalars(test_one_dataset(model, loader)).items():
            print(f"{metric}: {value}")


if __name__ == "__main__":
    try:
        main()
    except (HostError, RegistryError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
