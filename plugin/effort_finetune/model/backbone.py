"""The CLIP vision tower: its shape, where plain CLIP weights come from, and how it is built empty.

``CLIPModel(...).vision_model`` is the one construction whose inner parameter names are the same
in transformers 4.44 to 5.x (``CLIPVisionModel`` moved its prefix in 5.6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from torch import nn
from transformers import CLIPConfig, CLIPModel
from transformers.activations import ACT2FN

from effort_finetune.core.errors import UserError
from effort_finetune.weights.vision_config import DEFAULTS

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def shape_of(tower: nn.Module) -> dict[str, Any]:
    """Returns a tower's shape, activation and heads under the keys of ``CLIPVisionConfig``."""
    return {key: getattr(tower.config, key) for key in DEFAULTS}


def build_tower(shape: Mapping[str, Any], *, device: str = "meta") -> nn.Module:
    """Builds the vision tower.

    Args:
        shape: Keys of ``CLIPVisionConfig``. Those that do not shape the tower are left out; absent
            ones have the class's defaults.
        device: ``"meta"`` for a tower whose weights come from a file (nothing is initialised
            twice), ``"cpu"`` for one with transformers' own random initialisation.

    Returns:
        A module with ``embeddings``, ``pre_layrnorm``, ``encoder.layers.I`` and
        ``post_layernorm``; called with ``[B, 3, H, W]`` it returns an object whose
        ``pooler_output`` is ``[B, hidden_size]``.

    Raises:
        UserError: If transformers has no activation of that name.
    """
    vision = {key: shape.get(key, default) for key, default in DEFAULTS.items()}
    if vision["hidden_act"] not in ACT2FN:
        raise UserError(
            "hidden_act", got=vision["hidden_act"], expected="an activation that transformers knows"
        )
    # The text half is thrown away; the smallest one that CLIPModel accepts costs nothing.
    text = {
        "vocab_size": 4,
        "hidden_size": 4,
        "intermediate_size": 4,
        "num_hidden_layers": 0,
        "num_attention_heads": 1,
        "max_position_embeddings": 4,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    whole = CLIPConfig.from_dict(
        {"text_config": text, "vision_config": vision, "projection_dim": 4}, attn_implementation="sdpa"
    )
    with torch.device(device):
        tower = CLIPModel(whole).vision_model
    return tower


def random_tower(shape: Mapping[str, Any], *, seed: int = 0) -> nn.Module:
    """Builds a tower with random weights; for tests, benchmarks and training from scratch.

    Args:
        shape: As for :func:`build_tower`, e.g. ``{"hidden_size": 32, "image_size": 32, ...}``.
        seed: Seed of the weights; the global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_tower(shape, device="cpu")


def fill_buffers(tower: nn.Module) -> None:
    """Gives a tower built on the meta device the buffers that no checkpoint holds (``position_ids``).

    Raises:
        RuntimeError: If something else is still without a value.
    """
    for name, module in tower.named_modules():
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta and key == "position_ids":
                module.position_ids = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            elif buffer.is_meta:
                raise RuntimeError(f"buffer {name}.{key} has no value")
    empty = [name for name, p in tower.named_parameters() if p.is_meta]
    if empty:
        raise RuntimeError(f"parameters without a value: {', '.join(empty[:5])}")


def locate_clip(clip_path: str | Path) -> Path:
    """Finds plain CLIP.

    Args:
        clip_path: A folder, a weights file, or a hub id such as ``openai/clip-vit-large-patch14``,
            looked up in the local cache first.

    Returns:
        The folder (for a hub id, the one in the cache) or the file.

    Raises:
        UserError: If nothing is there, or the hub cannot be reached.
    """
    path = Path(clip_path).expanduser()
    if path.exists():
        return path
    if _HUB_ID.fullmatch(str(clip_path)) and path.suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        return _from_hub(str(clip_path))
    raise UserError(
        "clip_path",
        got=f"{clip_path} (no such file or folder)",
        expected="a CLIP folder, a weights file or a hub id like openai/clip-vit-large-patch14",
        next_step="set clip_path, or start from an Effort checkpoint with --pretrained_weights",
    )


def _from_hub(hub_id: str) -> Path:
    config = _hub_file(hub_id, "config.json")
    weights = next((f for name in _WEIGHT_FILES if (f := _hub_file(hub_id, name))), None)
    if config is None or weights is None:
        missing = "config.json" if config is None else " or ".join(_WEIGHT_FILES)
        raise UserError("clip_path", got=f"{hub_id} without {missing}", expected="a CLIP repository")
    return weights.parent


def _hub_file(hub_id: str, name: str) -> Path | None:
    """Returns a file of a hub repository, the local cache first; ``None`` when the repository has none."""
    cached = try_to_load_from_cache(hub_id, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(hub_id, name))
    except (OSError, HfHubHTTPError, EntryNotFoundError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            "clip_path",
            got=f"{hub_id}: {name} is not in the local cache and cannot be fetched ({reason})",
            expected="a CLIP folder, or a hub id that can be reached",
            next_step="download the model elsewhere and set clip_path to its folder, "
            "or start from an Effort checkpoint with --pretrained_weights",
        ) from error
