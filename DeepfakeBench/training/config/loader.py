"""Settings: the detector's YAML, and the bench's on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


class HostError(Exception):
    """Settings or data that cannot be used; the commands print it as one line and end with code 2."""


def load_config(detector_path: str, mode: str) -> dict[str, Any]:
    """Return the settings of a run: ``train_config.yaml`` or ``test_config.yaml`` over the detector's YAML.

    The two label tables are joined; ``log_dir`` is made relative to the DeepfakeBench folder.

    Raises:
        HostError: A file is missing or is no mapping, or names no detector.
    """
    config = _read(Path(detector_path))
    bench = _read(ROOT / "training/config" / f"{mode}_config.yaml")
    labels = {**(bench.get("label_dict") or {}), **(config.get("label_dict") or {})}
    config.update(bench, label_dict=labels, log_dir=str(ROOT / bench["log_dir"]))
    if not isinstance(config.get("model_name"), str):
        raise HostError(f"{detector_path} names no model_name; is it a detector's YAML?")
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise HostError(f"settings file {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise HostError(f"settings file {path} holds no mapping")
    return content
