"""Writes a model as plain CLIP: a ``CLIPVisionModel`` folder and the head beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from effort_finetune.config import Settings
from effort_finetune.core.files import write_json
from effort_finetune.core.interpolation import PILLOW_NUMBER
from effort_finetune.core.whole_folder import whole_folder
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.deepfakebench_layout import Exported, effective_weight, forward_tensors, plain
from effort_finetune.weights.layouts import RESIDUAL_LEAVES
from effort_finetune.weights.safe_io import HEAD_FILE, write_safetensors
from effort_finetune.weights.statement import ENTRY

_CLIP = Settings()  # its defaults are CLIP's own normalisation


def export_merged(checkpoint: Checkpoint, folder: Path | str) -> Exported:
    """Writes plain CLIP: a ``CLIPVisionModel`` folder in float32, and the head beside it.

    Residuals are summed into the weights in float64 and rounded once to float32: in bf16 the sum would
    swallow a rank-1 residual, whose entries lie under the rounding step.

    Args:
        checkpoint: The model.
        folder: Folder to write ``config.json, model.safetensors, head.safetensors`` and
            ``preprocessor_config.json`` into.
    """
    folder, state = Path(folder), checkpoint.tensors
    # With this prefix every transformers version loads it, whether its CLIPVisionModel has one or not.
    tower = {f"vision_model.{key}": value for key, value in dense_tower(state).items()}
    head = {key: plain(value) for key, value in state.items() if key.startswith("head.")}
    config = {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        **checkpoint.vision_config,
    }
    statement = checkpoint.statement
    mean, std = list(statement.mean or _CLIP.mean), list(statement.std or _CLIP.std)
    size = {"height": checkpoint.resolution, "width": checkpoint.resolution}
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True, "size": {"shortest_edge": checkpoint.resolution},
        "resample": PILLOW_NUMBER.get(statement.interpolation or "", PILLOW_NUMBER["bicubic"]),
        "do_center_crop": True, "crop_size": size,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_convert_rgb": True,
        "do_normalize": True, "image_mean": mean, "image_std": std,
        ENTRY: statement.to_dict(),
    }  # fmt: skip
    with whole_folder(folder) as made:
        written = (
            write_safetensors(made / "model.safetensors", tower, {"format": "pt"}),
            write_safetensors(made / HEAD_FILE, head, {"format": "pt"}),
            write_json(made / "config.json", config),
            write_json(made / "preprocessor_config.json", preprocessing),
        )
    return Exported(tuple(folder / path.name for path in written))


def dense_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tower as plain CLIP: its own keys without prefix, every residual merged, float32."""
    tower = {}
    for key, value in forward_tensors(state).items():
        module, _, leaf = key.rpartition(".")
        if leaf in RESIDUAL_LEAVES or not key.startswith("backbone."):
            continue
        if leaf == "weight_main":
            key, value = f"{module}.weight", effective_weight(state, module)
        tower[key.removeprefix("backbone.")] = plain(value)
    return tower
