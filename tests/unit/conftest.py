"""A cache folder of its own for every test, and a host in miniature: the interface the plugin relies on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "training/train.py": (
        "import argparse\r\n"
        "from trainer.trainer import Trainer\r\n"
        "parser = argparse.ArgumentParser()\r\n"
        "args = parser.parse_args()\r\n"
        "\r\n"
        "def prepare_training_data(config):\r\n"
        "    return None\r\n"
        "\r\n"
        "def prepare_testing_data(config):\r\n"
        "    return None\r\n"
        "\r\n"
        "def choose_optimizer(model, config):\r\n"
        "    return None\r\n"
        "\r\n"
        "def choose_metric(config):\r\n"
        "    return config['metric_scoring']\r\n"
        "\r\n"
        "def main(config, trainer):\r\n"
        "    logger_path =  config['log_dir']\r\n"
        "    for epoch in range(2):\r\n"
        "        trainer.model.epoch = epoch\r\n"
    ),
    "training/test.py": (
        "import argparse\n"
        "from metrics.utils import get_test_metrics\n"
        "parser = argparse.ArgumentParser()\n"
        "args = parser.parse_args()\n"
        "def prepare_testing_data(config):\n"
        "    return {}\n"
        "# Größe: a comment that is not ASCII\n"
        "def main(config, model, test_data_loaders, weights_path):\n"
        "    init_seed(config)\n"
        "    if weights_path:\n"
        "        pass\n"
        "    best_metric = test_epoch(model, test_data_loaders)\n"
        "    return best_metric"
    ),
    "training/dataset/__init__.py": "raise ImportError('a package __init__ that must not run')\n",
    "training/dataset/abstract_dataset.py": (
        "from torch.utils import data\n"
        "from .albu import SIZE\n"
        "class DeepfakeAbstractBaseDataset(data.Dataset):\n"
        "    size = SIZE\n"
        "    def collect_img_and_label_for_one_dataset(self, name):\n"
        "        return [], [], []\n"
        "    def load_rgb(self, path):\n"
        "        return None\n"
    ),
    "training/dataset/albu.py": "SIZE = 256\n",
    "training/metrics/__init__.py": "raise ImportError('a package __init__ that must not run')\n",
    "training/metrics/registry.py": (
        "class Registry:\n"
        "    def __init__(self):\n"
        "        self.data = {}\n"
        "    def register_module(self, module_name=None):\n"
        "        def register(cls):\n"
        "            self.data[module_name] = cls\n"
        "            return cls\n"
        "        return register\n"
        "    def __getitem__(self, key):\n"
        "        return self.data[key]\n"
        "BACKBONE, DETECTOR, TRAINER, LOSSFUNC = (Registry() for _ in range(4))\n"
    ),
    "training/metrics/utils.py": (
        "import torch\n"
        "torch.autograd.set_detect_anomaly(True)\n"
        "def get_test_metrics(y_pred, y_true, img_names):\n"
        "    y_true[y_true >= 1] = 1\n"
        "    return {'acc': float(((y_pred > 0.5) == y_true).mean()), 'pred': y_pred, 'label': y_true}"
    ),
    "training/trainer/trainer.py": "class Trainer:\n    pass\n",
    "training/detectors/__init__.py": "from metrics.registry import DETECTOR\r\n",
    "training/config/train_config.yaml": "mode: train\nlmdb: true\n",
    "training/config/test_config.yaml": "mode: test\nlmdb: true\n",
}


def write_host(root: Path) -> Path:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


def _snapshot(root: Path) -> dict[str, str]:
    """Every file below ``root`` with its hash and mode; compiled files left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() + oct(path.stat().st_mode)
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    return _snapshot


@pytest.fixture
def host_root(tmp_path: Path) -> Path:
    return write_host(tmp_path / "host")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
