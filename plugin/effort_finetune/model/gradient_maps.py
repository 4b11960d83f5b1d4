"""Heat maps from gradients of the log-odds of fake."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from effort_finetune.model.subject import Subject


def token_gradient(subject: Subject) -> Tensor:
    """Gradient times activation after the first norm of the last block but one, where that raises the score.

    After the norm and not before it: a norm does not care for the length of a token, so that the product
    before it is 0 wherever the token goes nowhere else.

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    passed = subject.traced
    block = max(0, len(passed.normed) - 2)
    product = passed.normed[block] * passed.normed_gradient[block]
    return subject.grid(product.sum(dim=-1)[:, 1:].relu())


def input_gradient(subject: Subject) -> Tensor:
    """Size of the gradient by the pixels, summed over each patch (Simonyan et al. 2014, section 3).

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    size = subject.traced.image_gradient.abs().sum(dim=1, keepdim=True)
    return F.avg_pool2d(size, subject.detector.resolution // subject.side)[:, 0]


def grad_cam(subject: Subject) -> Tensor:
    """Channels of the last block's first norm, weighted by their mean gradient.

    Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2; the layer is the one that the package
    pytorch-grad-cam takes for a ViT.

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    passed = subject.traced
    weight = passed.normed_gradient[-1][:, 1:].mean(dim=1, keepdim=True)
    return subject.grid((passed.normed[-1][:, 1:] * weight).sum(dim=-1).relu())


def conservative_relevance(subject: Subject) -> Tensor:
    """Shares of the log-odds by the patches that enter the first block, where they raise it.

    Ali et al. 2022, "XAI for Transformers: Better Explanations through Conservative Propagation": attention
    weights and deviations of the norms count as constants.

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    passed = subject.conservative
    return subject.grid((passed.states[0] * passed.states_gradient[0]).sum(dim=-1)[:, 1:].relu())
