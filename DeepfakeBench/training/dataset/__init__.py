"""Face-crop datasets in DeepfakeBench's on-disk format."""

from .abstract_dataset import DeepfakeAbstractBaseDataset

__all__ = ["DeepfakeAbstractBaseDataset"]
