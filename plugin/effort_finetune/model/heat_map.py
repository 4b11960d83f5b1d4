"""Where a detector looked: one table of methods, and maps of them over the crop.

How well each points at what was forged is measured by ``benchmarks/pointing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from effort_finetune.core.errors import UserError
from effort_finetune.model.attention_maps import attention_rollout, gradient_rollout
from effort_finetune.model.averaged_maps import NOTHING, averaged
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.gradient_maps import (
    conservative_relevance,
    grad_cam,
    input_gradient,
    token_gradient,
)
from effort_finetune.model.occlusion_maps import occlusion, token_removal
from effort_finetune.model.subject import Subject

Method = Callable[[Subject], Tensor]


@dataclass(frozen=True)
class HeatMapMethod:
    """One entry.

    Attributes:
        title: What it is, for people.
        source: Who proposed it.
        of: Makes ``float32[B, h, w]``, not negative, of a :class:`~effort_finetune.model.subject.Subject`.
        passes: Cost in forward passes of a crop, roughly; a backward pass counts as two.
    """

    title: str
    source: str
    of: Method
    passes: int


_SINGLE: Mapping[str, HeatMapMethod] = {
    "attention_rollout": HeatMapMethod("attention rollout", "Abnar and Zuidema 2020", attention_rollout, 3),
    "gradient_rollout": HeatMapMethod(
        "gradient-weighted attention rollout", "Chefer et al. 2021", gradient_rollout, 3
    ),
    "token_gradient": HeatMapMethod(
        "token gradient times activation before the last block", "Shrikumar et al. 2016", token_gradient, 3
    ),
    "input_gradient": HeatMapMethod("input gradient", "Simonyan et al. 2014", input_gradient, 3),
    "grad_cam": HeatMapMethod("Grad-CAM of the last block", "Selvaraju et al. 2017", grad_cam, 3),
    "conservative": HeatMapMethod("conservative propagation", "Ali et al. 2022", conservative_relevance, 3),
    "occlusion": HeatMapMethod("occlusion, 7 x 7", "Zeiler and Fergus 2014", occlusion, 49),
    "token_removal": HeatMapMethod("removal of tokens", "our own", token_removal, 81),
}
#: Averaged over the mirror image and neighbours, too; what needs a pass a place is smooth and dear enough.
METHODS: Mapping[str, HeatMapMethod] = {
    **_SINGLE,
    **{
        f"{name}_averaged": HeatMapMethod(
            f"{entry.title}, averaged", entry.source, averaged(entry.of), 2 * entry.passes
        )
        for name, entry in _SINGLE.items()
        if entry.passes < 10
    },
}
#: The map of a tower that was never measured: best beyond real twins on the one that was.
DEFAULT = "gradient_rollout_averaged"


def heat_maps(detector: EffortFinetuneDetector, images: Tensor, method: str = DEFAULT) -> Tensor:
    """Returns where the log-odds of fake come from.

    Args:
        detector: In evaluation mode; layers may be merged.
        images: ``float32[B, 3, H, W]``, normalised, on the detector's device.
        method: Of :data:`METHODS`.

    Returns:
        ``float32[B, H, W]`` on the CPU, 0 to 1, of each crop its own largest value being 1; all 0 where
        nothing speaks for fake. Not comparable between crops.

    Raises:
        UserError: An unknown method.
    """
    if method not in METHODS:
        raise UserError("heat map", got=repr(method), expected=f"one of {', '.join(METHODS)}")
    with torch.autocast(images.device.type, enabled=False):
        coarse = METHODS[method].of(Subject(detector, images.float()))
    return spread(coarse, images.shape[-1])


def spread(coarse: Tensor, side: int) -> Tensor:
    """Makes a coarse map ``[B, h, w]`` one of the crop's pixels, ``float32[B, side, side]`` on the CPU."""
    fine = F.interpolate(coarse[:, None].float(), size=(side, side), mode="bilinear", align_corners=False)
    fine = fine[:, 0].clamp(min=0)
    largest = fine.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > NOTHING, fine / largest.clamp(min=NOTHING), 0).cpu()


def peak(heat: Tensor) -> tuple[int, int] | None:
    """Returns row and column of the largest value of one map ``[H, W]``; None of a map that is all 0."""
    if not bool((heat > 0).any()):
        return None
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return row, column
