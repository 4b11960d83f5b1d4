"""Why a step could not be made: what to look at before the learning rate is blamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from effort_finetune.core.errors import RunFailure

#: Largest absolute value of a pixel that was normalised by any usual mean and std (ImageNet's reach 2.7).
FARTHEST = 20.0
OUT_OF_MEMORY = (
    "{device} ran out of memory on {batch} frames at once, and fewer cannot be taken; next: set "
    "activation_checkpointing true, precision bf16 or a narrower layer_range; with a host's batch norm halve "
    "train_batchSize"
)
_RATE = "lower optimizer.lr, set clip_grad_norm 1.0 or, in 16 bits, precision float32"


class BrokenStep(RunFailure):
    """A step that could not be made.

    Attributes:
        guard: The row of the guide's troubleshooting table.
    """

    def __init__(self, guard: str, message: str) -> None:
        super().__init__(message)
        self.guard = guard

    def finding(self) -> dict[str, str]:
        """Returns the entry of ``training.findings``."""
        says, _, next_step = str(self).partition("; next: ")
        return {"guard": self.guard, "says": says, "next": next_step}


def cause(batch: Mapping[str, Any], model: nn.Module) -> tuple[str, str]:
    """Looks for what made a loss not finite: frames, normalisation, labels, weights, and then the rate.

    Args:
        batch: The batch, as the loader gave it.
        model: As it was in this step.

    Returns:
        What was found, and what helps.
    """
    image, labels = batch["image"], batch["label"]
    if broken := int((~torch.isfinite(image.flatten(1)).all(1)).sum()):
        return f"{broken} of its {len(image)} frames hold values that are not finite", (
            "look at these frames, and at mean and std"
        )
    if (far := float(image.abs().max())) > FARTHEST:
        return f"its pixels reach {far:.3g} after normalisation, usual are 3", (
            "mean and std of pixels in 0..1, e.g. CLIP's"
        )
    if bool(((labels < 0) | (labels != labels.long())).any()):
        return f"its labels are {sorted(set(labels.tolist()))}", "label_dict: 0 is real, 1 and above fake"
    names = [n for n, p in model.named_parameters() if not bool(torch.isfinite(p.detach()).all())]
    if names:
        return f"{len(names)} of the model's tensors are not finite, e.g. {names[0]}", (
            f"other weights, or where these were fine at the start: {_RATE}"
        )
    return "its frames, normalisation and labels, and the weights, are fine", _RATE


def loss_failure(
    terms: Mapping[str, float], where: str, frames: Sequence[str], batch: Mapping[str, Any], model: nn.Module
) -> BrokenStep:
    """Says that a loss is not finite, with the batch's frames and the cause."""
    found, next_step = cause(batch, model)
    return BrokenStep(
        "non-finite loss",
        f"the loss is not finite: overall {terms['overall']} at {where}; {found}; frames: "
        f"{', '.join(frames) or 'not known to this loader'}; next: {next_step}",
    )


def gradient_failure(
    norm: float, where: str, batches: Sequence[Mapping[str, Any]], model: nn.Module
) -> BrokenStep:
    """Says that a gradient is not finite though the loss is."""
    found, next_step = max((cause(batch, model) for batch in batches), key=lambda c: c[1] != _RATE)
    return BrokenStep(
        "non-finite loss",
        f"a gradient is not finite (norm {norm}) though the loss is, at {where}; {found}; next: {next_step}",
    )


def memory_failure(device: torch.device, batch: int) -> BrokenStep:
    """Says what saves memory where smaller pieces do not, after so many frames at once did not fit."""
    return BrokenStep("memory", OUT_OF_MEMORY.format(device=device, batch=batch))
