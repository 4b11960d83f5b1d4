"""The preprocessing that the weights state is the one that is used."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.core.interpolation import INTERPOLATIONS
from effort_finetune.weights.reader import read_statement
from effort_finetune.weights.statement import Statement, checked
from effort_finetune.weights.trained_on import told_by

logger = logging.getLogger(__name__)

_DEFAULTS = Settings()
_KEYS = ("mean", "std", "interpolation")


def obey(settings: Settings, *, earlier: Mapping[str, Any] | None = None) -> Settings:
    """Returns the settings with what their weights state in place of defaults.

    Called before data is opened. What is stated counts where a setting has its default's value; a value
    given by hand that contradicts it stays, and :func:`mismatches` refuses or notes it when the model is
    built.

    Args:
        settings: ``pretrained_weights``, or ``clip_path`` where it is a folder or file, is read.
        earlier: Settings of the run that is resumed: what it went by is what counts.

    Raises:
        UserError: If the weights are missing, damaged or unsafe, or state nonsense.
    """
    source = settings.pretrained_weights or settings.clip_path
    path = Path(source).expanduser()
    if settings.fit is None:
        told = told_by(settings.pretrained_weights).fit if earlier is None else earlier.get("fit")
        if told is not None:
            logger.info("fit: %s, as %s", told, "the weights were trained" if earlier is None else "before")
            settings = settings.changed(fit=told)
    if earlier is not None:
        source = "the run that is resumed"
        stated = checked({key: earlier[key] for key in _KEYS if key in earlier}, source)
    elif settings.pretrained_weights is None and not path.exists():
        return settings  # a hub id: OpenAI's own values are the defaults
    else:
        stated = read_statement(path, allow_pickle=settings.allow_pickle)
    changes = {
        key: value for key, given, value in _differing(settings, stated) if given == getattr(_DEFAULTS, key)
    }
    for key, value in changes.items():
        logger.info("%s: %s, as %s states", key, _said(value), source)
    return settings.changed(**changes) if changes else settings


def mismatches(settings: Settings, stated: Statement, source: str) -> tuple[str, ...]:
    """Returns what the settings use in contradiction to the weights, as notes for the results.

    Args:
        settings: After :func:`obey`.
        stated: What the weights state.
        source: Their name.

    Raises:
        UserError: If there is any and ``allow_preprocessing_mismatch`` is off.
    """
    notes = []
    for key, given, value in _differing(settings, stated):
        if not settings.allow_preprocessing_mismatch:
            raise UserError(
                key,
                got=f"{_said(given)} in the settings; {source} states {_said(value)}",
                expected="the same in both",
                next_step=f"leave {key} out, or measure another model with --allow_preprocessing_mismatch",
            )
        notes.append(f"{key} {_said(given)} as the settings ask; {source} states {_said(value)}")
        logger.warning("%s", notes[-1])
    return tuple(notes)


def _differing(settings: Settings, stated: Statement) -> Iterator[tuple[str, Any, Any]]:
    for key in _KEYS:
        given, value = getattr(settings, key), getattr(stated, key)
        if key == "interpolation" and value not in INTERPOLATIONS:
            continue  # another library's way that we cannot follow, like Pillow's hamming
        if value is not None and value != given:
            yield key, given, value


def _said(value: Any) -> Any:
    return value if isinstance(value, str) else list(value)
