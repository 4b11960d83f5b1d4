"""Training without augmentation above a frozen part of the tower: that part sees every frame once.

Where only the head is trained its features are kept, else what enters the first block that is trained.
Either stands in for the pixels behind the same loader, sampler and collation, so that order, batches,
missing frames and resuming are those of a run without them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from effort_finetune.core import ranks
from effort_finetune.core.device import host_memory, is_out_of_memory
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.interrupt import Interrupted
from effort_finetune.core.precision import Precision
from effort_finetune.core.progress import track
from effort_finetune.data.frames import FrameDataset, Missing
from effort_finetune.data.loader import make_loader
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.frozen_prefix import before_block, first_trained_block, from_block
from effort_finetune.train.data import RunData, shuffled_loader

if TYPE_CHECKING:
    from effort_finetune.config import Settings

_LOST = "absent or undecodable"
_SHARE = 0.25  # of the machine's memory, at most, for features


class FrameFeatures(FrameDataset):
    """Frames of which features, float32, are read under ``image`` in place of pixels.

    A frame that could not be read when they were computed is missing in every epoch.

    Args:
        frames: Frames without augmentation; rows and protocol are theirs.
        shape: Of a feature: ``[hidden]``, or ``[tokens, hidden]`` within the tower.

    Attributes:
        features: ``[N, *shape]``; ``None`` before :meth:`compute`.
    """

    def __init__(self, frames: FrameDataset, shape: tuple[int, ...]) -> None:
        self.__dict__.update(vars(frames))
        self.frames, self.shape = frames, shape
        self.features: Tensor | None = None
        self._missing: dict[int, Missing] = {}

    def __getitem__(self, index: int) -> dict[str, Any] | Missing:
        if self.features is None:
            raise RuntimeError("the features are read before they are computed")
        if index in self._missing:
            return self._missing[index]
        return {"image": self.features[index], "label": self.rows[index].label, "index": index}

    def compute(self, batches: Iterable[Mapping[str, Any]], extract: Callable[[Tensor], Tensor]) -> None:
        """Reads every frame once.

        Args:
            batches: Of the frames, every one once.
            extract: Images ``[B, 3, H, W]`` to features ``[B, *shape]``.
        """
        missing: list[int] = []
        ours = ranks.current()
        features = torch.zeros(len(self), *self.shape)
        for batch in batches:
            missing += batch["missing"].tolist()
            if len(batch["index"]):
                features[batch["index"]] = extract(batch["image"]).float().cpu()
        lost = [row for part in ours.exchange(sorted(missing)) for row in part]
        ours.add_up(features.split(256), 1.0)  # each frame is one process's, and zeros in all others
        self.features, self._missing = features, {i: Missing(i, _LOST) for i in lost}


class OnFeatures(nn.Module):
    """The detector from its features on.

    Args:
        detector: Shares every weight.
        block: The block that the features enter; ``None``: they are the pooled ones, and the head's.
    """

    def __init__(self, detector: EffortFinetuneDetector, block: int | None) -> None:
        super().__init__()
        self.detector, self.block = detector, block

    def extract(self, images: Tensor) -> Tensor:
        """Returns the features of images ``[B, 3, H, W]``."""
        if self.block is None:
            return self.detector.features({"image": images})
        return before_block(self.detector.backbone, images, self.block)

    def forward(self, data_dict: Mapping[str, Any], inference: bool = False) -> dict[str, Tensor]:
        """Scores a batch of features under ``image`` as the detector does the frames they are of."""
        features = data_dict["image"]
        if self.block is not None:
            features = from_block(self.detector.backbone, features, self.block)
        logits = self.detector.classifier(features)
        return {"cls": logits, "prob": torch.softmax(logits.float(), dim=1)[:, 1], "feat": features}

    def merged(self) -> AbstractContextManager[None]:
        """Merges the detector's residuals within the context, as the scoring of frames does."""
        return self.detector.merged()

    def get_losses(self, data_dict: Mapping[str, Any], pred_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the detector's losses."""
        return self.detector.get_losses(data_dict, pred_dict)

    def class_weights(self) -> Tensor | None:
        """Returns the detector's class weights."""
        return self.detector.class_weights()


@dataclass(frozen=True)
class FeatureRun:
    """What takes the place of detector, loader and selection data where features are computed once.

    Attributes:
        model: What is left of the detector, for training and validation.
        loader: Batches of ``train``.
        train: Features of the training frames.
        selection: Features of the data that chooses the checkpoint, by dataset.
    """

    model: OnFeatures
    loader: DataLoader[Any]
    train: FrameFeatures
    selection: Mapping[str, FrameFeatures]

    def line(self) -> str:
        """Returns what the log says of it."""
        frames = len(self.train) + sum(map(len, self.selection.values()))
        block = self.model.block
        what = "only the head is trained" if block is None else f"nothing before block {block} is trained"
        return (
            f"{what}, on frames that do not change: features of {frames} frames take "
            f"{frames * math.prod(self.train.shape) * 4:,} bytes and are computed once"
        )

    def compute(self, settings: Settings, precision: Precision, stop: Callable[[], bool]) -> str:
        """Computes the features, once a process, and returns what the log says of it.

        Raises:
            Interrupted: If ``stop`` said so.
            RunFailure: If the device runs out of memory.
        """
        detector = self.model.detector
        device = detector.head.weight.device
        started = time.perf_counter()

        def extract(images: Tensor) -> Tensor:
            if stop():
                raise Interrupted
            with torch.no_grad(), precision.autocast():
                return self.model.extract(images.to(device))

        detector.eval()
        try:
            with detector.merged():
                for dataset in (*self.selection.values(), self.train):
                    batches = make_loader(
                        dataset.frames, batch_size=settings.test_batchSize, workers=settings.workers
                    )
                    dataset.compute(track(batches, desc="features", unit="batch"), extract)
        except RuntimeError as error:
            if stop():  # a loader's worker that was ended with the run is not the news
                raise Interrupted from None
            if not is_out_of_memory(error):
                raise
            raise RunFailure(
                f"{device} ran out of memory on {settings.test_batchSize} frames without a gradient; "
                "next: lower test_batchSize"
            ) from error
        frames = len(self.train) + sum(map(len, self.selection.values()))
        return f"features of {frames} frames computed in {time.perf_counter() - started:.1f} s"


def feature_run(
    model: EffortFinetuneDetector, data: RunData, settings: Settings, notes: list[str]
) -> FeatureRun | None:
    """Returns what trains a head on features computed once, ``None`` where the tower has to run each epoch.

    It has to where frames are augmented, something in the first block or before it is trained, the tower has
    dropout, or the features would take more than a quarter of the machine's memory; ``notes`` gets a line
    about the last.
    """
    config: Any = model.backbone.config
    block = first_trained_block(model.trainable.names, config.num_hidden_layers)
    if settings.use_data_augmentation or block == 0:
        return None
    if any(value for name, value in config.to_dict().items() if name.endswith("dropout")):
        return None
    head_only = all(name.startswith("head.") for name in model.trainable.names)
    tokens = 1 if block == config.num_hidden_layers else (config.image_size // config.patch_size) ** 2 + 1
    shape = (model.head.in_features,) if head_only else (tokens, config.hidden_size)
    frames = len(data.train) + sum(map(len, data.selection.values()))
    size = frames * math.prod(shape) * 4
    if size > _SHARE * host_memory() / ranks.current().launch.local_size:
        notes.append(
            f"features of {frames} frames take {size:,} bytes, more than a quarter of the memory: "
            "they are computed in every epoch"
        )
        return None
    train = FrameFeatures(data.train, shape)
    loader = shuffled_loader(train, settings.changed(workers=0))
    selection = {name: FrameFeatures(frames, shape) for name, frames in data.selection.items()}
    return FeatureRun(OnFeatures(model, None if head_only else block), loader, train, selection)
