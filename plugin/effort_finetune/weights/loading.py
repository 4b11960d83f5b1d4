"""Strict loading: every key ends in exactly one class, and anything missing or left over is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effort_finetune.core.errors import UserError
from effort_finetune.weights.checkpoint import Checkpoint, abbreviate
from effort_finetune.weights.hashing import BackgroundHash
from effort_finetune.weights.required_keys import is_finite
from effort_finetune.weights.statement import Statement

NEW_HEAD = "new: a plain CLIP checkpoint has no head"


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint and of the model it was loaded into.

    Attributes:
        hash: The SHA-256 being computed; read :attr:`sha256`.
        loaded: Canonical keys copied as they were.
        derived: Canonical key to the rule by which its value was computed.
        ignored: Key in the file to the rule why it is not used.
        missing: Keys of the model that the file lacks (with shape errors, what makes a load fail).
        unexpected: Keys of the file that the model lacks.
        wrong_shape: Canonical key to ``"<shape in the file> for <shape in the model>"``.
        hidden_act: The tower's activation.
        hidden_act_origin: Who says so: ``settings``, ``stated`` (by the file or its folder) or ``assumed``.
        notes: What a reader of a result has to know about these weights.
        statement: How the file says the model is to be used.
    """

    path: str
    layout: str
    wrappers: tuple[str, ...]
    hash: BackgroundHash = field(repr=False, compare=False)
    rank: int | None
    resolution: int
    hidden_act: str
    hidden_act_origin: str
    head_outputs: int | None
    loaded: tuple[str, ...]
    derived: Mapping[str, str]
    ignored: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: Mapping[str, str]
    converted: Mapping[str, int]
    notes: tuple[str, ...] = ()
    statement: Statement = field(default_factory=Statement)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal; waits for it when it is still being computed."""
        return self.hash.value()

    def counts(self) -> dict[str, int]:
        """Returns the number of keys in each class."""
        names = ("loaded", "derived", "ignored", "missing", "unexpected", "wrong_shape")
        return {name: len(getattr(self, name)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Returns the report for a result file: rules with their number of keys, not every key."""
        return {
            "path": self.path,
            "layout": self.layout,
            "wrappers": list(self.wrappers),
            "sha256": self.sha256,
            "rank": self.rank,
            "resolution": self.resolution,
            "hidden_act": self.hidden_act,
            "hidden_act_origin": self.hidden_act_origin,
            "head_outputs": self.head_outputs,
            "counts": self.counts(),
            "derived": dict(Counter(self.derived.values())),
            "ignored": dict(Counter(self.ignored.values())),
            "converted_to_float32": dict(self.converted),
            "notes": list(self.notes),
            "states": self.statement.to_dict(),
        }

    def lines(self) -> list[str]:
        """Returns the report for a log, a few short lines."""
        layout = " > ".join((*self.wrappers, self.layout))
        counts = ", ".join(
            f"{count} {name}" for name, count in self.counts().items() if count or name == "loaded"
        )
        result = [
            f"weights: {self.path} ({layout}, SHA-256 {self.sha256[:16]})",
            f"weights: {counts}; rank {self.rank}, resolution {self.resolution}, "
            f"head outputs {self.head_outputs}, {self.hidden_act} ({self.hidden_act_origin})",
        ]
        for name in ("derived", "ignored"):
            for rule, count in Counter(getattr(self, name).values()).items():
                result.append(f"weights: {count} {name} ({rule})")
        for dtype, count in self.converted.items():
            result.append(f"weights: {count} tensors stored as {dtype}, brought to float32")
        return [*result, *(f"weights: {note}" for note in self.notes)]


class CheckpointMismatch(UserError):
    """A checkpoint that does not fit the model.

    Attributes:
        missing: Keys of the model that the file lacks.
        unexpected: Keys of the file that the model lacks.
        wrong_shape: Key to both shapes.
    """

    def __init__(
        self, checkpoint: Checkpoint, missing: list[str], unexpected: list[str], wrong_shape: dict[str, str]
    ) -> None:
        self.missing, self.unexpected, self.wrong_shape = missing, unexpected, wrong_shape
        shapes = [f"{key} {shape}" for key, shape in wrong_shape.items()]
        groups = (("missing", missing), ("unexpected", unexpected), ("of wrong shape", shapes))
        super().__init__(
            f"checkpoint {checkpoint.path} ({checkpoint.layout}) does not fit the model",
            got="; ".join(f"{len(keys)} {name}: {abbreviate(keys)}" for name, keys in groups if keys),
            expected="every key in its place",
            next_step="effort-finetune inspect shows what the file holds",
        )


def load_into(
    checkpoint: Checkpoint, module: nn.Module, *, computed: Mapping[str, str] | None = None
) -> LoadReport:
    """Copies a checkpoint into a model whose state dict has canonical keys; all or nothing.

    Parameters and persistent buffers on the meta device are replaced by tensors of their own; others are
    written in place, in their dtype. Non-persistent buffers are not touched.

    Args:
        checkpoint: From :func:`~effort_finetune.weights.reader.read_checkpoint`.
        module: The detector, or a module that holds ``backbone`` (and ``head``). A plain CLIP checkpoint has
            no head: one in the module stays as it is and is reported as derived.
        computed: Keys of the module that the caller computes itself, with the rule, e.g. a loss's norms.

    Returns:
        The report; its ``missing``, ``unexpected`` and ``wrong_shape`` are empty.

    Raises:
        CheckpointMismatch: If any key is missing, unexpected or of a wrong shape. Nothing was copied then.
        UserError: If a tensor holds NaN or infinity; likewise.
    """
    computed = dict(computed or {})
    target: dict[str, Tensor] = module.state_dict(keep_vars=True)
    derived = dict(checkpoint.derived)
    derived.update({key: rule for key, rule in computed.items() if key not in checkpoint.tensors})
    if checkpoint.head_outputs is None and not checkpoint.residual_ranks:
        derived.update({key: NEW_HEAD for key in target if key.startswith("head.")})
    missing = [key for key in target if key not in checkpoint.tensors and key not in derived]
    unexpected = [*(key for key in checkpoint.tensors if key not in target), *checkpoint.unexpected]
    wrong_shape = {
        key: f"{list(tensor.shape)} for {list(target[key].shape)}"
        for key, tensor in checkpoint.tensors.items()
        if key in target and tensor.shape != target[key].shape
    }
    if missing or unexpected or wrong_shape:
        raise CheckpointMismatch(checkpoint, missing, unexpected, wrong_shape)
    with torch.no_grad():
        values: dict[str, Tensor] = {}
        damaged = []
        for key, tensor in checkpoint.tensors.items():
            values[key] = _own(tensor, target[key])
            if not is_finite(values[key]):  # asked while it is in the processor's cache
                damaged.append(key)
        checkpoint.refuse_damaged(damaged)
        for key, value in values.items():
            _put(module, key, target[key], value)
    checkpoint.hash.start()  # beside what follows; while the tensors were copied it would have taken a core
    return LoadReport(
        path=str(checkpoint.path),
        layout=checkpoint.layout,
        wrappers=checkpoint.wrappers,
        hash=checkpoint.hash,
        rank=checkpoint.rank,
        resolution=checkpoint.resolution,
        hidden_act=checkpoint.hidden_act,
        hidden_act_origin=checkpoint.hidden_act_origin,
        head_outputs=checkpoint.head_outputs,
        loaded=tuple(key for key in checkpoint.tensors if key not in derived),
        derived=derived,
        ignored=checkpoint.ignored,
        missing=(),
        unexpected=(),
        wrong_shape={},
        converted=checkpoint.converted,
        notes=(*checkpoint.notes, *checkpoint.tower_notes),
        statement=checkpoint.statement,
    )


def _own(source: Tensor, target: Tensor) -> Tensor:
    if not target.is_meta:
        return source
    value = source.to(dtype=target.dtype).contiguous()
    if value.data_ptr() != source.data_ptr():
        return value
    # A copy of its own, not a view of the mapped file: the file may be rewritten while the model lives. By
    # numpy, in one thread: page faults are what it costs, and torch's threads lose by waiting for each other.
    own = torch.empty(value.shape, dtype=value.dtype)
    np.copyto(_bytes(own), _bytes(value))
    return own


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.view(-1).view(torch.uint8).numpy()


def _put(module: nn.Module, key: str, target: Tensor, value: Tensor) -> None:
    if not target.is_meta:
        target.copy_(value)
        return
    owner_name, _, leaf = key.rpartition(".")
    owner = module.get_submodule(owner_name)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=target.requires_grad)
    else:
        owner._buffers[leaf] = value
