"""A map averaged over the crop and its mirror image, and over neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from effort_finetune.model.subject import Subject

#: Deviation of the Gaussian over the map, as a share of its side: one patch of a grid of eight.
WIDTH = 1 / 8
#: A map whose largest value is under this is rounding, not relevance.
NOTHING = 1e-6


def averaged(of: Callable[[Subject], Tensor]) -> Callable[[Subject], Tensor]:
    """Makes a method of a method: single patches are noisy, and a face has no handedness.

    Returns:
        A method that adds the maps of the crop and of its mirror image, each by its largest value, and blurs
        the sum. The blur weighs by what lies inside, so that it draws no peak towards the middle.
    """

    def both(subject: Subject) -> Tensor:
        return blurred(_scaled(of(subject)) + _scaled(of(subject.mirrored).flip(-1)))

    return both


def blurred(heat: Tensor) -> Tensor:
    """Blurs maps ``[B, h, w]`` by a Gaussian that ends at their edges."""
    height, width = (_weights(size).to(heat) for size in heat.shape[-2:])
    return height @ heat @ width.mT


def _weights(size: int) -> Tensor:
    """Returns ``[size, size]``: a Gaussian about each place, of sum 1."""
    place = torch.arange(size, dtype=torch.float32)
    return F.normalize(torch.exp(-((place[:, None] - place) ** 2) / 2 / (WIDTH * size) ** 2), p=1, dim=1)


def _scaled(heat: Tensor) -> Tensor:
    largest = heat.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > NOTHING, heat / largest.clamp(min=NOTHING), 0)
