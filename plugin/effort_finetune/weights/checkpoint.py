"""A checkpoint in canonical form: its tensors, what its shapes say, and what became of every key."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from effort_finetune.errors import UserError
from effort_finetune.weights.hashing import BackgroundHash
from effort_finetune.weights.layouts import RESIDUAL_LEAVES

_BLOCK = re.compile(r"backbone\.encoder\.layers\.(\d+)\.")
_MAIN = re.compile(r"backbone\.(?P<module>.+)\.weight_main")
_LINEARS = (*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


@dataclass
class Checkpoint:
    """A checkpoint under canonical keys (``backbone.*``, ``head.*``), float32 unless it was float64.

    Attributes:
        path: The file read.
        source: What was asked for: the file, or the folder it is in.
        layout: Name of its layout.
        tensors: Canonical key to tensor, as a rule memory-mapped: copy before changing one.
        hash: The SHA-256 being computed beside the loading; read :attr:`sha256`.
        wrappers: What was unwrapped, outermost first.
        ignored: Key in the file to the rule why it is not used.
        derived: Canonical key to the rule by which it was computed.
        unexpected: Keys in the file that nothing explains; strict loading refuses them.
        converted: Storage dtype to how many tensors were brought to float32.
        metadata: Header of a safetensors file.
        head_width: Width of an attention head, which no shape tells (64 in every CLIP tower).
        notes: What a reader of a result has to know about these weights, e.g. an overridden check.
    """

    path: Path
    source: Path
    layout: str
    tensors: dict[str, Tensor]
    hash: BackgroundHash = field(repr=False)
    wrappers: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    converted: dict[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    head_width: int = 64
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal; waits for it when it is still being computed."""
        return self.hash.value()

    @property
    def hidden_size(self) -> int:
        """Width of the tower."""
        return self._patch_weight.shape[0]

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self._patch_weight.shape[2]

    @property
    def resolution(self) -> int:
        """Input side in pixels: the position embedding's grid times the patch size.

        Raises:
            UserError: If the number of positions is not a square plus one.
        """
        positions = self._need("backbone.embeddings.position_embedding.weight", 2).shape[0]
        side = math.isqrt(max(positions - 1, 0))
        if side < 1 or side * side != positions - 1:
            raise UserError(
                f"{self.path}: position embedding",
                got=f"{positions} positions",
                expected="a square number plus one",
            )
        return side * self.patch_size

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def intermediate_size(self) -> int:
        """Width of the MLP."""
        for key, axis in (("weight", 0), ("weight_main", 0)):
            for block in sorted(self._blocks):
                tensor = self.tensors.get(f"backbone.encoder.layers.{block}.mlp.fc1.{key}")
                if tensor is not None and tensor.ndim == 2:
                    return tensor.shape[axis]
        raise UserError(f"{self.path}", got="no mlp.fc1 weight in any block", expected="a CLIP vision tower")

    @property
    def heads(self) -> int:
        """Number of attention heads: the tower's width over :attr:`head_width`.

        Raises:
            UserError: If the width does not divide.
        """
        if self.hidden_size % self.head_width:
            raise UserError(
                "head_width",
                got=f"{self.head_width} for a tower {self.hidden_size} wide ({self.path})",
                expected="a divisor of the width",
                next_step="set head_width to the width of one attention head of this tower",
            )
        return self.hidden_size // self.head_width

    @cached_property
    def residual_ranks(self) -> dict[str, int]:
        """Name of each decomposed module inside the tower to its residual rank, in the file's order."""
        ranks = {}
        for key in self.tensors:
            if match := _MAIN.fullmatch(key):
                singular = self.tensors.get(f"backbone.{match['module']}.S_residual")
                if singular is not None and singular.ndim == 1:
                    ranks[match["module"]] = singular.shape[0]
        return ranks

    @property
    def rank(self) -> int | None:
        """Residual rank k of most modules, ``None`` for a checkpoint that is not decomposed."""
        return Counter(self.residual_ranks.values()).most_common(1)[0][0] if self.residual_ranks else None

    @property
    def head_outputs(self) -> int | None:
        """Rows of ``head.weight``, ``None`` when there is no head (plain CLIP)."""
        weight = self.tensors.get("head.weight")
        return None if weight is None else weight.shape[0]

    @cached_property
    def missing(self) -> list[str]:
        """Forward-path keys that the file should have, judging by the rest of it."""
        return [key for key in self._forward_keys() if key not in self.tensors]

    def require_resolution(self, resolution: int, *, where: str = "resolution") -> None:
        """Refuses a checkpoint whose input size is not the settings'.

        Args:
            resolution: Side in pixels that the settings ask for.
            where: Name of the setting.
        """
        if self.resolution != resolution:
            raise UserError(
                where,
                got=f"{resolution} in the settings, but {self.path} has "
                f"{(self.resolution // self.patch_size) ** 2 + 1} positions of {self.patch_size} px patches, "
                f"which is {self.resolution}",
                expected="the same in both",
                next_step=f"set resolution: {self.resolution}",
            )

    def require_complete(self) -> None:
        """Refuses a file with missing or unexpected keys, for uses that build no model to load into."""
        if self.missing or self.unexpected:
            raise UserError(
                f"{self.path} ({self.layout})",
                got="; ".join(
                    f"{len(keys)} {name}: {abbreviate(keys)}"
                    for name, keys in (("missing", self.missing), ("unexpected", self.unexpected))
                    if keys
                ),
                expected="every key of the layout and no other",
            )

    @property
    def _patch_weight(self) -> Tensor:
        return self._need("backbone.embeddings.patch_embedding.weight", 4)

    @property
    def _blocks(self) -> set[int]:
        return {int(match[1]) for key in self.tensors if (match := _BLOCK.match(key))}

    def _need(self, key: str, dimensions: int) -> Tensor:
        tensor = self.tensors.get(key)
        if tensor is None or tensor.ndim != dimensions:
            found = "no such key" if tensor is None else f"shape {list(tensor.shape)}"
            raise UserError(
                f"{self.path} ({self.layout}): {key}",
                got=found,
                expected=f"a tensor of {dimensions} dimensions, from which the architecture is read",
            )
        return tensor

    def _forward_keys(self) -> list[str]:
        keys = [f"backbone.embeddings.{k}" for k in ("class_embedding", "patch_embedding.weight")]
        keys.append("backbone.embeddings.position_embedding.weight")
        norms = ["backbone.pre_layrnorm", "backbone.post_layernorm"]
        # A file cut short by whole blocks cannot be told from a shorter tower; one cut inside can.
        for block in range(max(self._blocks, default=-1) + 1):
            prefix = f"backbone.encoder.layers.{block}"
            norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
            for linear in _LINEARS:
                module = f"{prefix}.{linear}"
                decomposed = any(
                    f"{module}.{leaf}" in self.tensors for leaf in ("weight_main", *RESIDUAL_LEAVES)
                )
                leaves = ("weight_main", *RESIDUAL_LEAVES) if decomposed else ("weight",)
                keys += [f"{module}.{leaf}" for leaf in (*leaves, "bias")]
        keys += [f"{norm}.{leaf}" for norm in norms for leaf in ("weight", "bias")]
        if self.residual_ranks or "head.weight" in self.tensors or "head.bias" in self.tensors:
            keys += ["head.weight", "head.bias"]
        return keys


def effective_weight(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    """Returns a module's dense weight: ``weight``, or ``weight_main + U diag(S) V``.

    Summed in float64 and rounded once, to float32 (float64 stays): in a low precision the sum
    would swallow the residual.

    Args:
        tensors: Canonical state dict.
        module: Canonical module name, e.g. ``backbone.encoder.layers.0.self_attn.q_proj``.

    Returns:
        ``[n, m]``, a new tensor when the module is decomposed.
    """
    if f"{module}.weight" in tensors:
        return tensors[f"{module}.weight"]
    main = tensors[f"{module}.weight_main"]
    s, u, v = (tensors[f"{module}.{leaf}"].double() for leaf in RESIDUAL_LEAVES)
    dense = torch.addmm(main.double(), u * s, v)
    return dense if main.dtype == torch.float64 else dense.float()


def abbreviate(names: list[str], shown: int = 4) -> str:
    """Joins names, the first few in full and the rest as a count."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
