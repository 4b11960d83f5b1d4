"""Stores a calibration with the weights it belongs to: another file, the same tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import atomic_write, write_json
from effort_finetune.core.strict_json import read_json
from effort_finetune.export.calibrated_name import check_output
from effort_finetune.weights import safe_io
from effort_finetune.weights.adapter_header import METADATA_KEY
from effort_finetune.weights.first_look import locate
from effort_finetune.weights.statement import ENTRY, PREPROCESSOR_CONFIG, Statement, checked, of_text
from effort_finetune.weights.stored_calibration import StoredCalibration
from effort_finetune.weights.vision_config import of_state

#: What a model folder consists of beside its weights' own files.
_LARGEST_FOLDER = 64


def store_calibration(weights: Path, calibration: StoredCalibration, output: Path) -> Path:
    """Writes a copy of the weights that carries the calibration; every tensor keeps its bits.

    Args:
        weights: A ``.pth``, an adapter, a merged folder or an ONNX file.
        calibration: What it is to carry.
        output: New file, or new folder for a folder.

    Raises:
        UserError: If the output exists, or the weights are of a kind that carries no statement.
    """
    check_output(output)
    if weights.is_dir():
        return _folder(weights, calibration, output)
    if weights.suffix == ".onnx":
        return _onnx(weights, calibration, output)
    file = locate(weights)
    content, metadata = safe_io.read_raw(file)
    if METADATA_KEY in metadata:
        header = json.loads(metadata[METADATA_KEY])
        said = checked(header["preprocessing"], f"adapter {file}")
        header["preprocessing"] = _with(said, calibration).to_dict()
        text = json.dumps(header, allow_nan=False)
        return safe_io.write_safetensors(output, content, {**metadata, METADATA_KEY: text})
    flat = isinstance(content, Mapping) and all(isinstance(v, torch.Tensor) for v in content.values())
    if file.suffix == ".safetensors" or not flat:
        raise UserError(
            f"--weights {weights}",
            got="weights that have no place for a calibration",
            expected="a plain state dict (.pth), an adapter, a merged folder or an ONNX file",
            next_step=f"effort-finetune export {weights} --to deepfakebench --output FILE.pth",
        )
    said = of_state(content, f"checkpoint {file}").statement
    # Beside whatever else is said in the metadata of this state dict, e.g. what it was trained on.
    entries = getattr(content, "_metadata", None)
    if entries is None:
        from collections import OrderedDict

        content = OrderedDict(content)
        entries = content._metadata = OrderedDict()  # type: ignore[attr-defined]
    own = next((e for e in entries.values() if isinstance(e, dict) and ENTRY in e), None)
    if own is None:
        own = entries.setdefault("", {})
    own[ENTRY] = _with(said, calibration).to_dict()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            torch.save(content, stream)

    return atomic_write(output, write)


def _with(said: Statement, calibration: StoredCalibration) -> Statement:
    return replace(said, calibration=calibration.to_dict())


def _folder(weights: Path, calibration: StoredCalibration, output: Path) -> Path:
    locate(weights)
    files = [path for path in sorted(weights.iterdir()) if path.is_file()]
    if len(files) > _LARGEST_FOLDER:
        raise UserError(f"--weights {weights}", got=f"{len(files)} files", expected="a model folder")
    config: dict[str, Any] = {}
    if (path := weights / PREPROCESSOR_CONFIG).is_file():
        config = read_json(path)
    said = checked(config.get(ENTRY, {}), str(path))
    config[ENTRY] = _with(said, calibration).to_dict()
    for file in files:
        if file.name != PREPROCESSOR_CONFIG:
            atomic_write(output / file.name, partial(shutil.copyfile, file))
    write_json(output / PREPROCESSOR_CONFIG, config)  # last: a folder without it is no calibrated one
    return output


def _onnx(weights: Path, calibration: StoredCalibration, output: Path) -> Path:
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            "calibrate an ONNX file", got="no onnx here", next_step="pip install 'effort-finetune[onnx]'"
        ) from error
    model = onnx.load(weights)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    said = of_text(properties[ENTRY], str(weights)) if ENTRY in properties else Statement()
    properties[ENTRY] = json.dumps(_with(said, calibration).to_dict())
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    return atomic_write(output, lambda temporary: onnx.save(model, temporary))
