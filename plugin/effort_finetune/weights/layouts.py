"""Every known checkpoint layout and its way to canonical keys.

Canonical names are those of DeepfakeBench's Effort detector: ``backbone.<CLIP vision tower>`` and ``head.*``,
with ``weight_main, S_residual, U_residual, V_residual, bias`` in a decomposed module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError

RESIDUAL_LEAVES = ("S_residual", "U_residual", "V_residual")
# A reference value of the singular-value loss: in checkpoints of ours only, never on the forward path.
LOSS_LEAF = "residual_energy_ref"
LINEARS = (*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
EMBEDDINGS = ("class_embedding", "patch_embedding.weight", "position_embedding.weight")
_TOWER_KEY = re.compile(
    rf"embeddings\.(?:{'|'.join(map(re.escape, EMBEDDINGS))})"
    r"|(?:pre_layrnorm|post_layernorm)\.(?:weight|bias)"
    r"|encoder\.layers\.\d+\.layer_norm[12]\.(?:weight|bias)"
    rf"|encoder\.layers\.\d+\.(?:{'|'.join(map(re.escape, LINEARS))})"
    rf"\.(?:weight|bias|weight_main|{'|'.join(RESIDUAL_LEAVES)}|{LOSS_LEAF})"
)
_FORK_LEAF = re.compile(r"(?P<module>.+)\.(?P<part>[SUV])_r")

_TEXT = "the text tower and the projections are not used by the detector"
# Ignored by name, whatever the layout, after the tower's prefix is cut.
_TOWER_IGNORED = {
    re.compile(r"embeddings\.position_ids"): "a counter stored by transformers before 4.31",
}
_CLIP_IGNORED = {
    re.compile(r"(?:text_model\..+|visual_projection\.weight|text_projection\.weight|logit_scale)"): _TEXT,
}
# In OpenAI's own files only, all of whose towers have quick_gelu.
_OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")
_OPEN_CLIP_IGNORED = {
    re.compile(
        r"(?:transformer\..+|text\..+|token_embedding\.weight|positional_embedding|ln_final\.(?:weight|bias)"
        r"|text_projection(?:\.weight)?|logit_scale|logit_bias|attn_mask|visual\.proj)"
    ): _TEXT,
    re.compile("|".join(_OPENAI_SIZES)): "a size, taken from the shapes instead",
}


@dataclass(frozen=True)
class Layout:
    """One way of naming a CLIP vision tower and its head.

    Attributes:
        name: As reported.
        example: Who writes it, for the documentation.
        known_by: Whether keys are in it; the first entry of :data:`KNOWN` that says so is taken.
        tower: Prefix of the tower's keys.
        head: Prefix of the head's keys, or ``None`` where there is no head.
        ignored: Pattern of whole keys to the rule why they are not used.
        renamed: Makes tensors under the names of transformers of those in the file, where names differ; gets
            the name of the file for an error, too.
        finished: Converts what lies under canonical keys, where a tensor means something else.
    """

    name: str
    example: str
    known_by: Callable[[Collection[str]], bool]
    tower: str
    head: str | None = None
    ignored: Mapping[re.Pattern[str], str] = field(default_factory=dict)
    renamed: Callable[[dict[str, Tensor], Canonical, str], dict[str, Tensor]] | None = None
    finished: Callable[[Canonical], None] | None = None


@dataclass
class Canonical:
    """A state dict under canonical keys; every key of the file is in exactly one of the four.

    Attributes:
        layout: Name of the layout the file was in.
        tensors: Canonical key to tensor.
        derived: Canonical key to the rule by which it was computed from the file.
        ignored: Key in the file to the rule why it is not used.
        unexpected: Keys in the file that the layout does not have.
        stated: Keys of ``CLIPVisionConfig`` that the layout implies.
    """

    layout: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    stated: dict[str, str] = field(default_factory=dict)


def detect(keys: Collection[str]) -> Layout | None:
    """Returns the layout a flat state dict is in, or ``None`` when it is none of :data:`KNOWN`."""
    return next((layout for layout in KNOWN if layout.known_by(keys)), None)


def canonicalise(tensors: dict[str, Tensor], what: str) -> Canonical:
    """Brings a flat state dict under canonical keys.

    Args:
        tensors: Wrappers and common prefixes already removed.
        what: How to name the file in an error.

    Raises:
        UserError: If no known layout matches, or a stacked tensor cannot be split as the layout demands.
    """
    layout = detect(tensors)
    if layout is None:
        names = ", ".join(list(tensors)[:3])
        raise UserError(
            what,
            got=f"{len(tensors)} tensors, none of them in a known layout ({names}, …)",
            expected=f"one of {', '.join(known.name for known in KNOWN)}",
        )
    result = Canonical(layout.name)
    if layout.renamed:
        tensors = layout.renamed(tensors, result, what)
    for key, tensor in tensors.items():
        _place(key, tensor, layout, result)
    if layout.finished:
        layout.finished(result)
    return result


def _place(key: str, tensor: Tensor, layout: Layout, result: Canonical) -> None:
    rule = _rule(key, layout.ignored)
    inner = key.removeprefix(layout.tower)
    in_tower = key.startswith(layout.tower)
    if rule is None and in_tower:
        rule = _rule(inner, _TOWER_IGNORED)
    if rule is None and in_tower and _FORK_LEAF.fullmatch(inner):
        rule = "derivable: weight_main = U_r diag(S_r) V_r"
    if rule is not None:
        result.ignored[key] = rule
    elif in_tower and _TOWER_KEY.fullmatch(inner):
        result.tensors[f"backbone.{inner}"] = tensor
    elif layout.head and key in (f"{layout.head}weight", f"{layout.head}bias"):
        result.tensors[f"head.{key.removeprefix(layout.head)}"] = tensor
    else:
        result.unexpected.append(key)


def _rule(key: str, rules: Mapping[re.Pattern[str], str]) -> str | None:
    return next((rule for pattern, rule in rules.items() if pattern.fullmatch(key)), None)


def _convert_one_logit_head(result: Canonical) -> None:
    """Makes two logits of UniversalFakeDetect's one: (-z/2, +z/2): softmax[1] == sigmoid(z), exactly."""
    weight = result.tensors.get("head.weight")
    if weight is None or weight.shape[0] != 1:
        return
    for leaf in ("weight", "bias"):
        tensor = result.tensors.get(f"head.{leaf}")
        if tensor is not None and tensor.shape[:1] == (1,):
            half = tensor.to(torch.float32) / 2  # a power of two: exact
            result.tensors[f"head.{leaf}"] = torch.cat([-half, half])
            result.derived[f"head.{leaf}"] = "(-z/2, +z/2) of the one-logit fc"


_OPEN_CLIP_NAMES = {
    "visual.class_embedding": "embeddings.class_embedding",
    "visual.conv1.weight": "embeddings.patch_embedding.weight",
    "visual.positional_embedding": "embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "pre_layrnorm.weight",
    "visual.ln_pre.bias": "pre_layrnorm.bias",
    "visual.ln_post.weight": "post_layernorm.weight",
    "visual.ln_post.bias": "post_layernorm.bias",
}
_OPEN_CLIP_BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.(.+)")
_OPEN_CLIP_BLOCK_NAMES = {
    "ln_1.weight": "layer_norm1.weight",
    "ln_1.bias": "layer_norm1.bias",
    "ln_2.weight": "layer_norm2.weight",
    "ln_2.bias": "layer_norm2.bias",
    "attn.out_proj.weight": "self_attn.out_proj.weight",
    "attn.out_proj.bias": "self_attn.out_proj.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}


def _open_clip_to_transformers(tensors: dict[str, Tensor], result: Canonical, what: str) -> dict[str, Tensor]:
    """Renames open_clip's tower and splits its stacked q, k, v; other keys stay for the layout's rules."""
    if any(key in tensors for key in _OPENAI_SIZES):
        result.stated["hidden_act"] = "quick_gelu"
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        block = _OPEN_CLIP_BLOCK.fullmatch(key)
        if key in _OPEN_CLIP_NAMES:
            renamed[_OPEN_CLIP_NAMES[key]] = tensor
        elif block and block[2] in _OPEN_CLIP_BLOCK_NAMES:
            renamed[f"encoder.layers.{block[1]}.{_OPEN_CLIP_BLOCK_NAMES[block[2]]}"] = tensor
        elif block and block[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            if tensor.shape[0] % 3:
                raise UserError(
                    what,
                    got=f"{key} of shape {list(tensor.shape)}",
                    expected="q, k and v stacked on the first axis, three equal parts",
                )
            leaf = block[2].removeprefix("attn.in_proj_")
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                new = f"encoder.layers.{block[1]}.self_attn.{name}_proj.{leaf}"
                renamed[new] = part
                result.derived[f"backbone.{new}"] = f"rows of the stacked attn.in_proj_{leaf}"
        else:
            renamed[key] = tensor
    return renamed


def _has(start: str, end: str = "") -> Callable[[Collection[str]], bool]:
    return lambda keys: any(key.startswith(start) and key.endswith(end) for key in keys)


_decomposed = _has("backbone.encoder.", ".weight_main")
UNIVERSALFAKEDETECT = Layout(
    "universalfakedetect",
    "`effort_clip_L14_trainOn_UniversalFakeDetect.pth`; its one logit `z` becomes `(-z/2, +z/2)`, which "
    "gives the same probability exactly",
    _has("model.vision_model."),
    "model.vision_model.",
    "fc.",
    {re.compile(rf"model\.{pattern.pattern}"): rule for pattern, rule in _CLIP_IGNORED.items()},
    finished=_convert_one_logit_head,
)
EFFORT_FORK = Layout(
    "effort-fork",
    "checkpoints of the Effort authors' training code, which adds `S_r`, `U_r`, `V_r`",
    lambda keys: _decomposed(keys) and any(_FORK_LEAF.fullmatch(key) for key in keys),
    "backbone.",
    "head.",
)
DEEPFAKEBENCH = Layout(
    "deepfakebench",
    "the released `effort_clip_L14_trainOn_FaceForensic.pth`, our `ckpt_best.pth`",
    _decomposed,
    "backbone.",
    "head.",
)
DENSE_DETECTOR = Layout(
    "deepfakebench-dense",
    "the same names without a decomposition: decomposed on loading (cached)",
    _has("backbone.encoder.layers."),
    "backbone.",
    "head.",
)
OPEN_CLIP = Layout(
    "open-clip",
    "open_clip and the original CLIP: decomposed on loading (cached), with a new head",
    _has("visual.transformer.resblocks."),
    "",
    None,
    _OPEN_CLIP_IGNORED,
    renamed=_open_clip_to_transformers,
)
CLIP_PREFIXED = Layout(
    "clip-vision-model",
    "`CLIPModel` and `CLIPVisionModel` of transformers: the same",
    _has("vision_model.encoder.layers."),
    "vision_model.",
    "head.",
    _CLIP_IGNORED,
)
CLIP_BARE = Layout(
    "clip-vision-model-5.6",
    "`CLIPVisionModel` of transformers 5.6 and later: the same",
    _has("encoder.layers."),
    "",
    "head.",
)
#: Every known layout: the one list, asked from the top.
KNOWN = (
    UNIVERSALFAKEDETECT,
    EFFORT_FORK,
    DEEPFAKEBENCH,
    DENSE_DETECTOR,
    OPEN_CLIP,
    CLIP_PREFIXED,
    CLIP_BARE,
)
