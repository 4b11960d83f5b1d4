"""What a heat map is made of: a detector, its crops, and passes that several methods share."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from effort_finetune.model.backbone import shape_of
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.frozen_prefix import before_block, from_block
from effort_finetune.model.traced_pass import TracedPass, traced_pass


class Subject:
    """A batch of crops before a detector.

    Args:
        detector: In evaluation mode.
        images: ``float32[B, 3, H, W]``, normalised.

    Attributes:
        side: Patches along a side of the tower's grid; a map is ``[B, side, side]``.
    """

    def __init__(self, detector: EffortFinetuneDetector, images: Tensor) -> None:
        self.detector, self.images = detector, images
        self.side: int = detector.resolution // shape_of(detector.backbone)["patch_size"]

    @cached_property
    def traced(self) -> TracedPass:
        """The pass with the true gradients."""
        return traced_pass(self.detector, self.images)

    @cached_property
    def conservative(self) -> TracedPass:
        """The pass whose gradients share out the log-odds."""
        return traced_pass(self.detector, self.images, conservative=True)

    @cached_property
    def mirrored(self) -> Subject:
        """The same crops, left and right exchanged."""
        return Subject(self.detector, self.images.flip(-1))

    @cached_property
    def log_odds(self) -> Tensor:
        """``float32[B]``, of fake."""
        return self.score(self.images)

    def score(self, images: Tensor) -> Tensor:
        """Returns the log-odds of fake, ``float32[N]``, of pictures like those of the batch."""
        with torch.inference_mode():
            return self._odds(self.detector.features({"image": images}))

    @cached_property
    def tokens(self) -> Tensor:
        """What enters the first block, ``[B, T, d]``."""
        with torch.inference_mode():
            return before_block(self.detector.backbone, self.images, 0)

    def score_tokens(self, tokens: Tensor) -> Tensor:
        """Returns the log-odds of fake, ``float32[N]``, of what enters the first block, ``[N, any, d]``."""
        with torch.inference_mode():
            return self._odds(from_block(self.detector.backbone, tokens, 0))

    def grid(self, tokens: Tensor) -> Tensor:
        """Returns values of the patch tokens, ``[B, side * side]``, as ``[B, side, side]``."""
        return tokens.unflatten(-1, (self.side, self.side))

    def _odds(self, features: Tensor) -> Tensor:
        logits = self.detector.classifier(features)
        return logits[:, 1] - logits[:, 0]
