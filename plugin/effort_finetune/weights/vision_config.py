"""What no tensor tells about a tower, and where files say it: activation, heads, layer-norm epsilon.

Towers with ``gelu`` (open_clip's own) and with ``quick_gelu`` (OpenAI's) have the same tensors, so a weights
file alone cannot be computed with. Folders have a ``config.json`` or an ``open_clip_config.json``. What this
package writes with ``torch.save`` carries transformers' ``CLIPVisionConfig`` keys in the ``_metadata`` of its
state dict, where torch keeps module versions: it survives ``torch.load(weights_only=True)``, the file keeps
DeepfakeBench's keys and no other, and every ``load_state_dict(strict=True)`` takes it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.core.strict_json import read_json
from effort_finetune.weights.first_look import FOLDER_FILES
from effort_finetune.weights.statement import ENTRY as STATEMENT_ENTRY
from effort_finetune.weights.statement import Statement
from effort_finetune.weights.statement import checked as checked_statement

CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
#: Every key of ``CLIPVisionConfig`` that shapes the tower, with its default, which is what a ``config.json``
#: without the key means.
DEFAULTS: Mapping[str, int | float | str] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_ENTRY = "vision_config"
#: Beside the tower's keys: the datasets that the weights were trained on, a list of mappings.
TRAINED_ON = "trained_on"
_LARGEST_RECORD = 4096  # datasets


@dataclass(frozen=True)
class Said:
    """What a state dict says in its metadata, beside its tensors.

    Attributes:
        config: The tower under the keys of ``CLIPVisionConfig``.
        statement: How it is to be used.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    statement: Statement = field(default_factory=Statement)

    def __bool__(self) -> bool:
        return bool(self.config) or bool(self.statement)

    def entry(self) -> dict[str, Any]:
        """Returns it as a module's metadata entry holds it."""
        return {_ENTRY: dict(self.config), STATEMENT_ENTRY: self.statement.to_dict()}


def stating(tensors: Mapping[str, Tensor], said: Said) -> OrderedDict[str, Tensor]:
    """Returns a state dict that says what no tensor does when it is saved with ``torch.save``."""
    state = OrderedDict(tensors)
    state._metadata = OrderedDict({"": said.entry()})  # type: ignore[attr-defined]
    return state


def add_to_metadata(state: Mapping[str, Tensor], prefix: str, said: Said) -> None:
    """Adds what is said to the entry of the module at ``prefix`` (``""`` or ``"module."``)."""
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:  # a plain dictionary, handed to state_dict() as destination, has no place for it
        metadata.setdefault(prefix[:-1], {}).update(said.entry())


def of_entry(entry: Mapping[str, Any], what: str = "state dict") -> dict[str, Any]:
    """Returns what one module's metadata entry says; empty where it says nothing.

    Raises:
        UserError: If it says something that no tower can be.
    """
    return checked(entry.get(_ENTRY, {}), f"{what}: {_ENTRY}")


def of_state(state: Any, what: str) -> Said:
    """Returns what a state dict says; empty where it says nothing.

    Args:
        state: As read from a file.
        what: How to name the file in an error.

    Raises:
        UserError: If it says something that no tower or preprocessing can be.
    """
    metadata = getattr(state, "_metadata", None)
    entries = metadata.values() if isinstance(metadata, Mapping) else ()
    for entry in entries:
        if isinstance(entry, Mapping) and (_ENTRY in entry or STATEMENT_ENTRY in entry):
            return Said(of_entry(entry, what), checked_statement(entry.get(STATEMENT_ENTRY, {}), what))
    return Said()


def of_file(file: Path, *, required: bool) -> dict[str, Any]:
    """Returns what the configuration beside a model folder's weights file says about the tower.

    transformers' ``config.json`` is complete: a key that it lacks has its default. ``open_clip_config.json``
    tells what it tells. Of two, the one made by the program that named the weights file counts.

    Args:
        file: One of the names in a model folder.
        required: Whether the folder was asked for as a model; a file asked for by its own name may lie beside
            a configuration of something else.

    Raises:
        UserError: If it is damaged, or missing and required.
    """
    if file.name not in FOLDER_FILES:
        return {}
    order = [CONFIG, OPEN_CLIP_CONFIG]
    for name in reversed(order) if file.name.startswith("open_clip") else order:
        path = file.with_name(name)
        if path.is_file():
            stated = _OF_CONFIG[name](read_config(path), str(path))
            if stated:
                return stated
    if required:
        raise UserError(
            f"model folder {file.parent}",
            got=f"no {CONFIG} or {OPEN_CLIP_CONFIG} of a CLIP vision tower",
            expected="one of them: no tensor tells the tower's activation",
            next_step="name the weights file instead and set hidden_act",
        )
    return {}


def checked(config: Any, what: str) -> dict[str, Any]:
    """Returns the keys of a configuration that shape the tower.

    Raises:
        UserError: If it is no mapping, or a value has the wrong type or sign.
    """
    if not isinstance(config, Mapping):
        raise UserError(what, got=repr(config), expected="keys of CLIPVisionConfig")
    known = {key: config[key] for key in DEFAULTS if key in config}
    for key, value in known.items():
        kind = type(DEFAULTS[key])
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not fits or (kind is not str and not value > 0):
            expected = {str: "the name of an activation", int: "a whole number > 0", float: "a number > 0"}
            raise UserError(what, got=f"{key}: {value!r}", expected=expected[kind])
    if TRAINED_ON in config:
        known[TRAINED_ON] = _checked_record(config[TRAINED_ON], what)
    return known


def of_tower(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a configuration that are the tower's own."""
    return {key: value for key, value in config.items() if key != TRAINED_ON}


def _checked_record(record: Any, what: str) -> list[dict[str, Any]]:
    fits = isinstance(record, list) and len(record) <= _LARGEST_RECORD
    if not fits or not all(
        isinstance(entry, Mapping)
        and isinstance(entry.get("name"), str)
        and all(map(_is_plain, entry.values()))
        for entry in record
    ):
        raise UserError(what, got=f"{TRAINED_ON} of another form", expected="a list of named datasets")
    return [dict(entry) for entry in record]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (str, int, float)) for item in value)
    return value is None or isinstance(value, (str, int, float))


def read_config(path: Path) -> dict[str, Any]:
    """Reads a model folder's configuration.

    Raises:
        UserError: If it is missing or no JSON object.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError("CLIP folder", got=f"{path} ({error})", expected="a JSON object") from error
    if not isinstance(found, dict):
        raise UserError("CLIP folder", got=f"{path} holding no object", expected="a JSON object")
    return found


def _of_transformers(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    ours = "vision_config" in config or "hidden_size" in config
    if not ours and config.get("model_type") not in ("clip", "clip_vision_model"):
        return {}  # of another program, e.g. timm's
    return {**DEFAULTS, **checked(config.get("vision_config") or config, what)}


def _of_open_clip(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    model = config.get("model_cfg")
    vision = model.get("vision_cfg", {}) if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(vision, Mapping):
        return {}
    names = {"width": "hidden_size", "layers": "num_hidden_layers", "patch_size": "patch_size"}
    stated = {name: vision[key] for key, name in names.items() if key in vision}
    if isinstance(vision.get("width"), int):
        stated["num_attention_heads"] = vision["width"] // vision.get("head_width", 64)
    stated["hidden_act"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return checked(stated, what)


_OF_CONFIG = {CONFIG: _of_transformers, OPEN_CLIP_CONFIG: _of_open_clip}
