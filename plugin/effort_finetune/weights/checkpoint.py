"""A checkpoint in canonical form: its tensors, what its shapes say, and what became of every key."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.weights.hashing import BackgroundHash
from effort_finetune.weights.layouts import LOSS_LEAF
from effort_finetune.weights.required_keys import forward_keys, is_finite, misshapen, residual_ranks
from effort_finetune.weights.statement import Statement
from effort_finetune.weights.vision_config import DEFAULTS, of_tower

_BLOCK = re.compile(r"backbone\.encoder\.layers\.(\d+)\.")
# Of every OpenAI tower, and open_clip's default.
_HEAD_WIDTH = 64
_WIDEST_OPENAI = 1024


@dataclass
class Checkpoint:
    """A checkpoint under canonical keys (``backbone.*``, ``head.*``), float32 unless it was float64.

    Attributes:
        path: The file read.
        layout: Name of its layout.
        tensors: Canonical key to tensor, as a rule memory-mapped: copy before changing one.
        hash: The SHA-256 being computed beside the loading; read :attr:`sha256`.
        wrappers: What was unwrapped, outermost first.
        ignored: Key in the file to the rule why it is not used.
        derived: Canonical key to the rule by which it was computed.
        unexpected: Keys in the file that nothing explains; strict loading refuses them.
        converted: Storage dtype to how many tensors were brought to float32.
        metadata: Header of a safetensors file.
        statement: How the model is to be used, as far as the file or its folder says.
        stated: Keys of ``CLIPVisionConfig`` that the file, or the configuration beside it, states.
        given_head_width: What the settings say, over what is stated; ``None`` where they do not.
        given_hidden_act: The same for the activation.
        notes: What a reader of a result has to know about these weights, e.g. an overridden check.
    """

    path: Path
    layout: str
    tensors: dict[str, Tensor]
    hash: BackgroundHash = field(repr=False)
    wrappers: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    converted: dict[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    statement: Statement = field(default_factory=Statement)
    stated: Mapping[str, Any] = field(default_factory=dict)
    given_head_width: int | None = None
    given_hidden_act: str | None = None
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
        for block in sorted(self._blocks):
            for leaf in ("weight", "weight_main"):
                tensor = self.tensors.get(f"backbone.encoder.layers.{block}.mlp.fc1.{leaf}")
                if tensor is not None and tensor.ndim == 2:
                    return tensor.shape[0]
        raise UserError(f"{self.path}", got="no mlp.fc1 weight in any block", expected="a CLIP vision tower")

    @property
    def heads(self) -> int:
        """Number of attention heads, which no shape tells: as given, as stated, or of width 64.

        Raises:
            UserError: If the tower's width does not divide.
        """
        stated = self.stated.get("num_attention_heads")
        heads: int
        if self.given_head_width is not None or stated is None:
            width = self.given_head_width or _HEAD_WIDTH
            heads, rest = divmod(self.hidden_size, width)
            got = str(width)
        else:
            heads, rest = stated, self.hidden_size % stated
            got = f"{stated} heads stated"
        if rest or heads < 1:
            raise UserError(
                "head_width",
                got=f"{got} for a tower {self.hidden_size} wide ({self.path})",
                expected="a divisor of the width",
                next_step="set head_width to the width of one attention head of this tower",
            )
        return heads

    @property
    def hidden_act(self) -> str:
        """Name of the MLP's activation, which no shape tells: as given, as stated, or OpenAI CLIP's."""
        return self.given_hidden_act or self.stated.get("hidden_act") or str(DEFAULTS["hidden_act"])

    @property
    def hidden_act_origin(self) -> str:
        """Where :attr:`hidden_act` comes from: ``settings``, ``stated`` or ``assumed``."""
        if self.given_hidden_act is not None:
            return "settings"
        return "stated" if "hidden_act" in self.stated else "assumed"

    @property
    def tower_notes(self) -> tuple[str, ...]:
        """What a reader of a result has to know about what no tensor tells."""
        notes = [
            f"{key} {value} as the settings ask; {self.path} states {self.stated[key]}"
            for key, value in self.known_config.items()
            if self.stated.get(key, value) != value
        ]
        # Upstream's Effort is OpenAI's tower. Plain CLIP may be anyone's, and a wider one is not OpenAI's.
        if self.residual_ranks and self.hidden_size <= _WIDEST_OPENAI:
            return tuple(notes)
        if self.hidden_act_origin == "assumed":
            notes.append(
                f"hidden_act {self.hidden_act} is assumed, as in OpenAI's CLIP: {self.path} does not say, "
                "and open_clip's gelu towers have the same tensors; set hidden_act to be sure"
            )
        if self.hidden_size > _WIDEST_OPENAI and "num_attention_heads" not in self.known_config:
            notes.append(
                f"heads of width {_HEAD_WIDTH} are assumed: {self.path} does not say; "
                "set head_width to be sure"
            )
        return tuple(notes)

    @property
    def known_config(self) -> dict[str, Any]:
        """What is stated or given of the tower under the keys of ``CLIPVisionConfig``; nothing assumed."""
        given: dict[str, Any] = {}
        if self.given_head_width is not None:
            given["num_attention_heads"] = self.heads
        if self.given_hidden_act is not None:
            given["hidden_act"] = self.given_hidden_act
        return {**self.stated, **given}

    @property
    def vision_config(self) -> dict[str, Any]:
        """The whole tower under these keys: what is known, else the shapes, else OpenAI's CLIP."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_channels": DEFAULTS["num_channels"],
            "image_size": self.resolution,
            "patch_size": self.patch_size,
            "num_attention_heads": self.heads,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": DEFAULTS["layer_norm_eps"],
            **of_tower(self.known_config),
        }

    @cached_property
    def residual_ranks(self) -> dict[str, int]:
        """Name of each decomposed module inside the tower to its residual rank, in the file's order."""
        return residual_ranks(self.tensors)

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
        return [key for key in self._forward_keys if key not in self.tensors]

    @property
    def left_over(self) -> list[str]:
        """What nothing explains, and what has no place beside the rest: a second weight of one module."""
        known = {*self._forward_keys}
        surplus = [k for k in self.tensors if k not in known and not k.endswith(f".{LOSS_LEAF}")]
        return [*self.unexpected, *surplus]

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
        """Refuses a file with missing or unexpected keys, for uses that build no model to load into.

        Raises:
            UserError: For these, for factors or a head of a wrong shape, and for what is no number.
        """
        shapes = [f"{key} {shape}" for key, shape in misshapen(self.tensors).items()]
        groups = (("missing", self.missing), ("unexpected", self.left_over), ("of wrong shape", shapes))
        if any(keys for _, keys in groups):
            raise UserError(
                f"{self.path} ({self.layout})",
                got="; ".join(f"{len(keys)} {name}: {abbreviate(keys)}" for name, keys in groups if keys),
                expected="every key of the layout and no other",
            )
        self.refuse_damaged([key for key, tensor in self.tensors.items() if not is_finite(tensor)])

    def refuse_damaged(self, keys: list[str]) -> None:
        """Refuses the file if any tensor holds NaN or infinity.

        Some attention kernels turn a NaN into finite, wrong scores: nothing later would notice.
        """
        if keys:
            raise UserError(
                f"{self.path} ({self.layout})",
                got=f"NaN or infinity in {len(keys)} of {len(self.tensors)} tensors: {abbreviate(keys)}",
                expected="numbers",
                next_step="take the checkpoint of an earlier epoch, or download the file again",
            )

    @cached_property
    def _forward_keys(self) -> list[str]:
        # A stated depth tells a file cut by whole blocks from one of a shorter tower.
        blocks = max(1 + max(self._blocks, default=-1), self.stated.get("num_hidden_layers", 0))
        return forward_keys(self.tensors, blocks)

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


def abbreviate(names: list[str], shown: int = 4) -> str:
    """Joins names, the first few in full and the rest as a count."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
