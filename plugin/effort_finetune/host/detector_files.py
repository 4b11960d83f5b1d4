"""A host's own detectors, by their files alone: which there are, with which YAML, and what each needs."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.host.registered_names import class_body, registered

if TYPE_CHECKING:
    from effort_finetune.host.host import Host

#: Before a name: the host's own class, where the name alone means ours.
HOSTS_PREFIX = "host:"
#: What a batch of frames offers to a detector.
OFFERED = frozenset({"image", "label"})
_SCORING = ("forward", "features", "classifier")
_TRAINING = (*_SCORING, "get_losses", "get_train_loss", "get_train_losses", "get_train_metrics")


def detector_module(host: Host, name: str) -> str:
    """Returns the module that registers a detector, e.g. ``detectors.xception_detector``.

    Raises:
        UserError: If the host has no detector of this name.
    """
    modules = registered(host.root / "training", "DETECTOR")
    if name not in modules:
        raise UserError(
            "--model_name",
            got=f"{name!r}, which {host.root / 'training/detectors'} does not register",
            expected=f"effort_finetune or one of {', '.join(sorted(modules)) or 'none'}",
            next_step=did_you_mean(name, modules),
        )
    return modules[name]


def detector_yaml(host: Host, name: str) -> Path | None:
    """Returns the host's own settings file of a detector: the one whose ``model_name`` it is."""
    folder = host.root / "training/config/detector"
    for file in sorted(folder.glob("*.y*ml"), key=lambda file: (file.stem != name, file.name)):
        with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(content, Mapping) and content.get("model_name") == name:
                return file
    return None


def check_needs(host: Host, name: str, config: Mapping[str, Any], *, training: bool) -> None:
    """Refuses a detector that cannot work on single frames, before anything is imported or read.

    Args:
        host: The host.
        name: The detector.
        config: What it will be built with.
        training: Whether it is to be trained, too.

    Raises:
        UserError: It needs clips, another dataset class, or something of a batch that frames do not have.
    """
    module = detector_module(host, name)

    def refuse(need: str) -> UserError:
        return UserError(
            f"the detector {name!r} cannot be {'trained' if training else 'scored'} here",
            got=f"it needs {need}",
            expected="a detector of single frames",
            next_step=f"run it with the host's own {'train' if training else 'test'}.py",
        )

    if config.get("video_mode"):
        raise refuse(f"clips of {config.get('clip_size', 'several')} frames (video_mode)")
    file = host.root / "training" / (module.replace(".", "/") + ".py")
    body = class_body(file, "DETECTOR", name)
    if body is not None and (method := _reads_setting(body, "clip_size")):
        raise refuse(f"clips (config['clip_size'], read in {method})")
    if body is not None and (line := _takes_five_axes(body)):
        raise refuse(f"clips (line {line} of {file.name} reads images of five axes)")
    if body is not None and (model := _video_model(file, body)):
        raise refuse(f"clips (it builds transformers' {model}, which takes several frames)")
    if training and config.get("dataset_type") not in (None, "abstract", "normal"):
        raise refuse(f"the training samples of dataset_type {config['dataset_type']!r}")
    keys = {} if body is None else _keys_read(body, _TRAINING if training else _SCORING)
    if missing := sorted(set(keys) - OFFERED):
        raise refuse(f"{' and '.join(missing)} in each batch (read in {keys[missing[0]]})")


def _reads_setting(body: ast.ClassDef, key: str) -> str | None:
    """Returns the method in which a detector reads a key of its configuration, if any does."""
    for method in body.body:
        if isinstance(method, ast.FunctionDef):
            for node in ast.walk(method):
                if (
                    isinstance(node, ast.Subscript)
                    and getattr(node.value, "attr", getattr(node.value, "id", None)) == "config"
                    and isinstance(node.slice, ast.Constant)
                    and node.slice.value == key
                ):
                    return method.name
    return None


def _takes_five_axes(body: ast.ClassDef) -> int | None:
    """Returns the line in which a detector takes apart, or turns, five axes of a batch's images."""
    for node in ast.walk(body):
        of: ast.expr
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            of, axes = node.value, len(node.targets[0].elts)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "permute":
            of, axes = node.func, len(node.args)
        else:
            continue
        if axes == 5 and isinstance(of, ast.Attribute) and ast.unparse(of.value) == "data_dict['image']":
            return node.lineno
    return None


def _video_model(file: Path, body: ast.ClassDef) -> str | None:
    """Returns the class of transformers' that a detector builds and whose configuration counts frames."""
    used = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    names = [
        alias.name
        for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file)))
        if isinstance(node, ast.ImportFrom) and node.module == "transformers"
        for alias in node.names
        if (alias.asname or alias.name) in used
    ]
    if not names:
        return None
    import transformers

    for name in names:
        configuration = getattr(getattr(transformers, name, None), "config_class", None)
        if configuration is not None and hasattr(configuration(), "num_frames"):
            return name
    return None


def _keys_read(body: ast.ClassDef, methods: tuple[str, ...]) -> dict[str, str]:
    """Keys of ``data_dict`` that the methods read, with the method that reads each first."""
    keys: dict[str, str] = {}
    for method in body.body:
        if isinstance(method, ast.FunctionDef) and method.name in methods:
            for node in ast.walk(method):
                if (
                    isinstance(node, ast.Subscript)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "data_dict"
                    and isinstance(node.slice, ast.Constant)
                    and isinstance(node.ctx, ast.Load)
                ):
                    keys.setdefault(str(node.slice.value), method.name)
    return keys
