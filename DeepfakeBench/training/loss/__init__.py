"""Loss functions; importing this package fills LOSSFUNC."""

from metrics.registry import LOSSFUNC

from .abstract_loss_func import AbstractLossClass
from .cross_entropy_loss import CrossEntropyLoss

__all__ = ["LOSSFUNC", "AbstractLossClass", "CrossEntropyLoss"]
