"""Heat maps from what is taken away: how far the log-odds of fake fall without a part of the picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from effort_finetune.model.subject import Subject

#: Pictures (of one crop, with a part taken away) that are scored at once.
AT_ONCE = 32
FIELDS = 7


def occlusion(subject: Subject) -> Tensor:
    """The log-odds lost when a square is filled with the mean colour, 7 x 7 squares side by side.

    Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.

    Returns:
        ``float32[B, 7, 7]``, not negative.
    """
    maps = []
    edges = [round(i * subject.detector.resolution / FIELDS) for i in range(FIELDS + 1)]
    for image, whole in zip(subject.images, subject.log_odds, strict=True):
        covered = image.expand(FIELDS * FIELDS, -1, -1, -1).clone()
        for number in range(FIELDS * FIELDS):
            y, x = divmod(number, FIELDS)
            covered[number, :, edges[y] : edges[y + 1], edges[x] : edges[x + 1]] = (
                0  # CLIP's mean, normalised
            )
        left = torch.cat([subject.score(part) for part in covered.split(AT_ONCE)])
        maps.append((whole - left).relu().view(FIELDS, FIELDS))
    return torch.stack(maps)


def token_removal(subject: Subject) -> Tensor:
    """The log-odds lost when a window of tokens is left out of the sequence; a patch's mean over its windows.

    A ViT takes any number of tokens, so that nothing foreign is put in the place of what is taken away. The
    windows have a quarter of the grid's side and overlap by half.

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    windows = list(_windows(subject.side))
    kept = torch.stack([~inside.flatten() for inside in windows])  # [windows, side * side]
    device = subject.images.device
    maps = []
    for tokens in subject.tokens:
        whole = subject.score_tokens(tokens[None])
        lost = torch.zeros(subject.side, subject.side, device=device)
        times = torch.zeros_like(lost)
        for inside, fall in zip(windows, _falls(subject, tokens, kept, whole), strict=True):
            lost[inside] += fall
            times += inside.to(device)
        maps.append((lost / times).relu())
    return torch.stack(maps)


def _falls(subject: Subject, tokens: Tensor, kept: Tensor, whole: Tensor) -> Iterator[Tensor]:
    """Yields the log-odds lost for each window; windows that leave equally many tokens go together."""
    falls: dict[int, Tensor] = {}
    patches = tokens[1:]
    for size in kept.sum(dim=1).unique().tolist():
        same = (kept.sum(dim=1) == size).nonzero()[:, 0]
        for part in same.split(AT_ONCE):
            left = torch.stack([torch.cat([tokens[:1], patches[kept[i]]]) for i in part])
            odds = subject.score_tokens(left)
            falls.update(zip(part.tolist(), whole - odds, strict=True))
    for number in range(len(kept)):
        yield falls[number]


def _windows(side: int) -> Iterator[Tensor]:
    """Yields square windows as ``bool[side, side]`` that cover the grid, each patch by several."""
    width = max(1, side // 4)
    step = max(1, width // 2)
    for top in range(1 - width, side, step):
        for left in range(1 - width, side, step):
            inside = torch.zeros(side, side, dtype=torch.bool)
            inside[max(0, top) : top + width, max(0, left) : left + width] = True
            if not inside.all():
                yield inside
