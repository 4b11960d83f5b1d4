"""The settings files of a run: the host's own, a detector's own, those that are named, presets on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.config.resolve import OUR_NAMES
from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.resources import root
from effort_finetune.host.detector_files import HOSTS_PREFIX, check_needs, detector_yaml

if TYPE_CHECKING:
    from effort_finetune.host.host import Host


def settings_files(
    host: Host, model_name: str | None, layers: Sequence[Path], *, own_config: bool
) -> Sequence[Path]:
    """Returns the settings files; presets alone lie on top of the host's own file, where it has one.

    Args:
        host: The host.
        model_name: The detector; one of the host's without a file of its own takes that detector's.
        layers: Files and presets in the order given.
        own_config: Whether a settings file is among them.

    Raises:
        UserError: If the host lacks the file that is needed, or the detector.
    """
    if not own_config and model_name is not None and model_name not in OUR_NAMES:
        return [_theirs(host, model_name.removeprefix(HOSTS_PREFIX)), *layers]
    path = Path(host.root) / "training" / "config" / "detector" / "effort_finetune.yaml"
    if own_config or (layers and not path.is_file()):
        return layers
    if not path.is_file():
        raise UserError(
            "no effort_finetune.yaml in the host",
            got=host.root,
            expected="training/config/detector/effort_finetune.yaml",
            next_step=_where_it_is(host, path),
        )
    return path, *layers


def _where_it_is(host: Host, path: Path) -> str:
    """What to do without it; an embedded host has nothing to install."""
    if not host.embedded:
        return f"effort-finetune install {host.root}, or name a file with --detector_config"
    shipped = root() / "DeepfakeBench" / path.relative_to(host.root)
    return f"--detector_config {shipped}" if shipped.is_file() else f"git checkout -- {path}"


def preset(name: str) -> Path:
    """Returns the file of a named choice of settings.

    Raises:
        UserError: If there is none of that name.
    """
    files = presets()
    if name not in files:
        expected = f"one of {', '.join(files)}"
        raise UserError("--preset", got=repr(name), expected=expected, next_step=did_you_mean(name, files))
    return files[name]


def presets() -> dict[str, Path]:
    """Returns the files of all named choices."""
    return {path.stem: path for path in sorted((root() / "configs" / "presets").glob("*.yaml"))}


def _theirs(host: Host, name: str) -> Path:
    """The YAML of one of the host's detectors."""
    found = detector_yaml(host, name)
    if found is not None:
        return found
    check_needs(host, name, {}, training=False)  # an unknown name, or one of clips, is what stops the run
    raise UserError(
        f"--model_name {name}",
        got=f"no YAML of it in {host.root / 'training/config/detector'}",
        next_step="name one with --detector_config",
    )
