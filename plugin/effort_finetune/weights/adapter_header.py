"""What an adapter file says about itself, and the identity of its base."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.core.strict_json import parse_json
from effort_finetune.weights import vision_config
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.layouts import LOSS_LEAF, RESIDUAL_LEAVES

METADATA_KEY = "effort_finetune_adapter"
FORMAT_VERSION = 1
_BASE_KEYS = ("name", "layout", "file_sha256", "targeted_sha256", "frozen_sha256")
# What an adapter brings for each of its modules.
OWN_LEAVES = (*RESIDUAL_LEAVES, LOSS_LEAF)


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter says about itself, from the header of its file.

    Attributes:
        base: ``name``, ``layout``, ``file_sha256``, ``targeted_sha256`` and ``frozen_sha256`` of its base.
        targets: Names of the decomposed modules inside the tower.
        rank: Residual rank k.
        preprocessing: How the model is to be used, a :class:`~effort_finetune.weights.statement.Statement`.
        settings: The run's settings, or ``None`` when they are not known.
        settings_digest: Their digest.
        code_version: Version of this package that wrote it.
        vision_config: The tower under the keys of ``CLIPVisionConfig``; ``None`` in the first files, whose
            base says what no tensor tells.
    """

    base: Mapping[str, str]
    targets: tuple[str, ...]
    rank: int
    preprocessing: Mapping[str, Any]
    settings: Mapping[str, Any] | None
    settings_digest: str | None
    code_version: str
    format_version: int = FORMAT_VERSION
    vision_config: Mapping[str, Any] | None = None

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], what: str) -> AdapterInfo:
        """Parses a safetensors header.

        Raises:
            UserError: If it was written by a later format or is not what :func:`save_adapter` writes.
        """
        try:
            document = parse_json(metadata[METADATA_KEY], f"{what}: {METADATA_KEY}")
            if document["format_version"] != FORMAT_VERSION:
                raise UserError(
                    what, got=f"adapter format {document['format_version']}", expected=f"{FORMAT_VERSION}",
                    next_step="update effort-finetune",
                )  # fmt: skip
            document["targets"] = tuple(document["targets"])
            document["base"] = {key: document["base"][key] for key in _BASE_KEYS}
            document["preprocessing"] = dict(document["preprocessing"])
            info = cls(**document)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(what, got=f"a damaged adapter header ({error!r})") from error
        vision_config.checked(info.vision_config or {}, f"{what}: vision_config")
        return info


def identity(base: Checkpoint, targets: Iterable[str], stored: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns what makes a base the same base, whatever file it is in.

    Args:
        base: The base.
        targets: Canonical names of the adapter's decomposed modules.
        stored: The adapter's own tensors.

    Returns:
        ``targeted_sha256`` over the targeted weights, ``frozen_sha256`` over every other tensor of the tower
        that the adapter does not bring itself.
    """
    targeted = {f"{target}.{leaf}" for target in targets for leaf in ("weight", "weight_main")}
    frozen = (
        key
        for key in base.tensors
        if key.startswith("backbone.")
        and key not in targeted
        and key not in stored
        and key.rpartition(".")[2] not in OWN_LEAVES
    )
    return {
        "targeted_sha256": content_digest(base.tensors, targeted.intersection(base.tensors)),
        "frozen_sha256": content_digest(base.tensors, frozen),
    }


def content_digest(tensors: Mapping[str, Tensor], keys: Iterable[str]) -> str:
    """Returns a SHA-256 over names, shapes and float32 values of some tensors, in the names' order."""
    digest = hashlib.sha256()
    for key in sorted(keys):
        tensor = tensors[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.view(torch.uint8).numpy().data if tensor.ndim else tensor.numpy().tobytes())
    return digest.hexdigest()
