"""One dictionary of settings from the detector's YAML, the bench's YAML and the flags, each over the one
before."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .errors import SettingError

ROOT = Path(__file__).resolve().parents[2]
CONFIG_DIR = Path(__file__).resolve().parent

#: Settings that name a file or folder. A hub name may stand in clip_path.
PATH_KEYS = frozenset(
    {
        "clip_path",
        "dataset_json_folder",
        "lmdb_dir",
        "log_dir",
        "output_dir",
        "pretrained_weights",
        "resume",
        "rgb_dir",
    }
)
#: Settings a flag may give though no YAML names them.
FLAG_KEYS = frozenset(
    {
        "compression",
        "device",
        "dry_run",
        "frame_sampling",
        "output_dir",
        "pretrained_weights",
        "resume",
        "val_dataset",
    }
)
#: Settings without which a run cannot start, and those of them that count something.
REQUIRED = {
    "train": ("resolution", "mean", "std", "train_batchSize", "test_batchSize", "nEpochs", "optimizer"),
    "test": ("resolution", "mean", "std", "test_batchSize"),
}
COUNTS = {
    "resolution": 1,
    "train_batchSize": 1,
    "test_batchSize": 1,
    "rec_iter": 1,
    "nEpochs": 0,
    "workers": 0,
}
#: Short spellings of common settings.
ALIASES = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay"}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        SettingError: No such file, not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"settings file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"settings file {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SettingError(f"settings file {path} holds a {type(content).__name__}, expected a mapping")
    return content


def find_path(text: str) -> Path:
    """Return an existing path given on the command line: seen from the working directory, else from the root.

    A path that exists in neither is returned as seen from the working directory, for the caller's message.
    """
    path = Path(text).expanduser()
    return path if path.exists() or not (ROOT / path).exists() else ROOT / path


def _from_root(key: str, value: Any) -> Any:
    """Make a path from a YAML file absolute; a clip_path that is no path there stays the hub name it is."""
    if key not in PATH_KEYS or not isinstance(value, str):
        return value
    path = ROOT / Path(value).expanduser()
    return value if key == "clip_path" and not value.startswith(".") and not path.exists() else str(path)


def parse_value(words: Sequence[str]) -> Any:
    """Turn the words after a flag into a value: YAML's types, ``1e-4`` a number, several words a list."""
    values = []
    for word in words:
        try:
            value = yaml.safe_load(word)
        except yaml.YAMLError:
            value = word
        # YAML 1.1 reads 1e-4 as text.
        if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", word):
            value = float(word)
        values.append(value)
    return values[0] if len(values) == 1 else values


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Read ``--key value ...`` and ``--key=value`` into dotted keys and values.

    Raises:
        SettingError: A word that belongs to no flag, or a flag without a value.
    """
    found: dict[str, list[str]] = {}
    key = ""
    for word in words:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            found[key] = [value] if equals else []
        elif key:
            found[key].append(word)
        else:
            raise SettingError(f"argument '{word}' belongs to no flag")
    for name, values in found.items():
        if not values:
            raise SettingError(f"flag --{name} has no value")
    return {name: parse_value(values) for name, values in found.items()}


def _unknown(key: str, known: Iterable[str]) -> SettingError:
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"; did you mean {' or '.join(f'--{name}' for name in close)}?" if close else ""
    return SettingError(f"--{key} is not a setting of this detector or of the bench{hint}")


def _set_optimizer(optimizer: dict[str, Any], name: str, value: Any) -> bool:
    """Set a hyperparameter wherever it stands, beside ``type`` and under each type; False when nowhere."""
    tables = [optimizer, *(options for options in optimizer.values() if isinstance(options, dict))]
    places = [options for options in tables if name in options]
    for options in places:
        options[name] = value
    return bool(places)


def apply_overrides(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Set dotted keys in ``config``, in place.

    ``optimizer.lr`` and ``optimizer.adam.lr`` are one setting: each is set in all places where the YAML has
    it.

    Raises:
        SettingError: A key that neither the YAML files nor the bench know; near names are suggested.
    """
    for spelled, value in overrides.items():
        key = ALIASES.get(spelled, spelled) if spelled not in config else spelled
        parts = key.split(".")
        if parts[0] == "optimizer" and len(parts) > 1 and isinstance(config.get("optimizer"), dict):
            if not _set_optimizer(config["optimizer"], parts[-1], value):
                raise _unknown(spelled, _dotted(config))
            continue
        if parts[0] not in config and (parts[0] not in FLAG_KEYS or len(parts) > 1):
            raise _unknown(spelled, {*_dotted(config), *FLAG_KEYS})
        node = config
        for part in parts[:-1]:
            node = node.get(part)
            if not isinstance(node, dict):
                raise _unknown(spelled, _dotted(config))
        if len(parts) > 1 and parts[-1] not in node:
            raise _unknown(spelled, _dotted(config))
        if key in PATH_KEYS and isinstance(value, str):
            found = find_path(value)
            value = value if key == "clip_path" and not found.exists() else str(found.absolute())
        node[parts[-1]] = value


def _dotted(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in config.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, Mapping) and key != "label_dict":
            names += _dotted(value, f"{prefix}{key}.")
    return names


def load_config(detector_path: str, mode: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Build the settings of a run.

    Args:
        detector_path: The detector's YAML, seen from the working directory or from the DeepfakeBench root.
        mode: ``train`` or ``test``; chooses ``train_config.yaml`` or ``test_config.yaml``, which wins over
            the detector's YAML, except that the two label tables are joined.
        overrides: Dotted keys from flags; they win over both.

    Raises:
        SettingError: A file is missing or malformed, or a key is unknown.
    """
    config = read_yaml(find_path(detector_path))
    bench = read_yaml(CONFIG_DIR / f"{mode}_config.yaml")
    bench["label_dict"] = {**(config.get("label_dict") or {}), **(bench.get("label_dict") or {})}
    config.update(bench)
    config = {key: _from_root(key, value) for key, value in config.items()}
    if not isinstance(config.get("model_name"), str):
        raise SettingError(f"{detector_path} names no model_name; is it a detector's YAML?")
    apply_overrides(config, overrides)
    for key in ("train_dataset", "val_dataset", "test_dataset"):
        if isinstance(config.get(key), str):
            config[key] = [config[key]]
    _check(config, mode, detector_path)
    return config


def _check(config: Mapping[str, Any], mode: str, source: str) -> None:
    missing = [key for key in REQUIRED[mode] if config.get(key) is None]
    if missing:
        raise SettingError(f"{source} lacks {', '.join(missing)}")
    for key, least in COUNTS.items():
        value = config.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError(f"{key} is {value!r}, expected a whole number of at least {least}")
