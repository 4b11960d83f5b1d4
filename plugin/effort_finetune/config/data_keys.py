"""Settings of the data: which datasets, where they lie, which frames, and what is done to a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from effort_finetune.config.augmentations import STEPS
from effort_finetune.config.kinds import (
    AtLeastZero,
    Count,
    CountOrZero,
    Pixels,
    Processes,
    Rgb,
    RgbDeviation,
    Share,
    Text,
    Texts,
    Truth,
)
from effort_finetune.config.section import DATA, SCORE, TRAIN, Section, setting
from effort_finetune.core.interpolation import Interpolation


class FrameNum(Section):
    """Frames used of each video."""

    READ_BY: ClassVar[tuple[str, ...]] = DATA

    train: Count = setting(8, "frames of each training (and validation) video")
    test: Count = setting(32, "frames of each test video")


# The steps' fields, in the steps' order; a type checker does not see through bases that are computed.
_Steps: Any = type("_Steps", tuple(reversed(STEPS)), {"__module__": __name__})


class DataAug(_Steps):
    """Training augmentation, DeepfakeBench's keys; milder than its defaults, for fine-tuning."""

    extra: Mapping[Text, Share] = setting({}, "further albumentations transforms by name, each with its p")

    @model_validator(mode="after")
    def _qualities_in_order(self) -> Self:
        if self.quality_lower > self.quality_upper:
            raise PydanticCustomError(
                "contradiction",
                "{key}: {expected}",
                {
                    "key": "data_aug.quality_lower",
                    "got": self.quality_lower,
                    "expected": f"<= data_aug.quality_upper ({self.quality_upper})",
                },
            )
        return self


class AugmentationKeys(Section):
    """The keys at the top level that say how training frames are augmented."""

    use_data_augmentation: Truth = setting(True, "augment training frames", read_by=TRAIN)
    data_aug: DataAug = setting(DataAug(), "training augmentation")


class DataKeys(AugmentationKeys):
    """The keys at the top level that say what is read."""

    READ_BY: ClassVar[tuple[str, ...]] = DATA

    train_dataset: Texts = setting((), "training datasets: names of the index, or paths to folders")
    val_dataset: Texts | None = setting(None, "datasets of the val split; null: the training datasets")
    test_dataset: Texts = setting((), "test datasets: names of the index, or paths to folders")
    real_folders: Texts = setting(
        (), "names of the real folders of a dataset given by path; empty: known words"
    )
    fake_folders: Texts = setting(
        (), "names of the fake folders of a dataset given by path; empty: known words"
    )
    folder_samples: Literal["auto", "stills", "videos"] = setting(
        "auto", "what the pictures of one folder below real or fake are: samples of their own, or one video"
    )
    folder_shares: tuple[Share, Share, Share] = setting(
        (0.8, 0.1, 0.1), "train, val and test shares of a folder that has no such folders of its own"
    )
    identity: Text | None = setting(
        None, "regular expression of a person in a clip's own name; null: by the known ways of naming"
    )
    limit: Count | None = setting(
        None, "samples of each class and folder at most, drawn by the seed", read_by=SCORE
    )
    split: Literal["held_out", "all"] = setting(
        "held_out", "what a test reads of a folder: what was not trained on, or all of it", read_by=SCORE
    )
    fit: Literal["crop", "pad", "squash", "native"] | None = setting(
        None,
        "how a picture of a folder becomes a square; null: the weights' own way, else crop",
        read_by=SCORE,
    )
    faces: Literal["cropped", "whole"] = setting(
        "cropped",
        "what the pictures of a folder are: crops of faces, or whole pictures; part of the crop recipe",
        read_by=SCORE,
    )
    loader: Literal["plugin", "host"] = setting(
        "plugin",
        "who lists and reads the frames of an index: we do, or the host's own dataset class",
        read_by=SCORE,
    )
    compression: Literal["raw", "c23", "c40"] = setting("c23", "FF++ compression level")
    lmdb: Truth = setting(True, "read crops from LMDB (false: from plain files)")
    lmdb_dir: Text = setting("./datasets/lmdb", "folder of the <name>_lmdb databases", path=True)
    rgb_dir: Text = setting("./datasets/rgb", "folder of the plain crops", path=True)
    dataset_json_folder: Text = setting(
        "./preprocessing/dataset_json", "folder of the <name>.json files", path=True
    )
    label_dict: Mapping[Text, CountOrZero] = setting(
        {}, "label groups of the JSON files: 0 is real, >= 1 is fake"
    )
    frame_num: FrameNum = setting(FrameNum(), "frames used of each video")
    frame_sampling: Literal["uniform", "first"] = setting(
        "uniform", "which frames: evenly spaced, or the first n", read_by=SCORE
    )
    max_missing_rate: Share = setting(
        0.01, "share of frames that may be unreadable before a run fails", read_by=SCORE
    )
    resolution: Pixels = setting(224, "input size in pixels; has to be the checkpoint's", read_by=SCORE)
    interpolation: Interpolation = setting(
        "bicubic", "how a crop is brought to the resolution; hosts use bicubic", read_by=SCORE
    )
    mean: Rgb = setting((0.48145466, 0.4578275, 0.40821073), "RGB mean (CLIP's)", read_by=SCORE)
    std: RgbDeviation = setting((0.26862954, 0.26130258, 0.27577711), "RGB deviation (CLIP's)", read_by=SCORE)
    train_batchSize: Count = setting(8, "frames in a training batch", read_by=TRAIN)
    test_batchSize: Count = setting(32, "frames in an evaluation batch", read_by=SCORE)
    allow_outside_paths: Truth = setting(
        False,
        "read frames that an index lists outside rgb_dir and the host; only for indexes you trust",
    )
    workers: Processes = setting(2, "loader processes; 0 loads in the main one", read_by=SCORE)
    self_blended: Share = setting(
        0.0, "share of the real training faces that come once more as self-blended fakes", read_by=TRAIN
    )
    balance: Literal["none", "oversample", "group", "dataset"] = setting(
        "none",
        "what comes equally often in training: oversample the classes, group also the label groups of each "
        "class, dataset the datasets and both classes of each",
        read_by=TRAIN,
    )
    group_weights: Mapping[Text, AtLeastZero] = setting(
        {},
        "balance group or dataset: how often a label group or dataset comes, 1 if not named",
        read_by=TRAIN,
    )
    group_quotas: Mapping[Text, Count] = setting(
        {}, "label groups or datasets with a fixed number of frames an epoch", read_by=TRAIN
    )
    hard_examples: Share = setting(
        0.0, "share of an epoch's frames, from the second on, drawn by their last loss", read_by=TRAIN
    )
