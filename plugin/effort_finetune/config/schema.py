"""Every setting the plugin reads: its key, type, default, bounds and meaning.

The attribute tree is the YAML tree, with DeepfakeBench's key names where it has one
(``training/config/detector/*.yaml`` and ``training/config/train_config.yaml`` in the host).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

Check = Callable[[Any], "str | None"]


def _at_least(low: float) -> Check:
    return lambda v: None if v >= low else f"a number >= {low:g}"


def _above(low: float) -> Check:
    return lambda v: None if v > low else f"a number > {low:g}"


def _within(low: float, high: float) -> Check:
    return lambda v: None if low <= v <= high else f"a number from {low:g} to {high:g}"


def _ordered(v: tuple[float, float]) -> str | None:
    return None if v[0] <= v[1] else "[low, high] with low <= high"


def _blur_limit(v: tuple[int, int]) -> str | None:
    return None if 0 <= v[0] <= v[1] else "[low, high] kernel sizes in pixels, low <= high"


def _setting(default: Any, help: str, check: Check | None = None, *, path: bool = False) -> Any:
    metadata = {"help": help, "check": check, "path": path}
    if is_dataclass(default) or isinstance(default, Mapping):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FrameNum:
    """Frames used of each video."""

    train: int = _setting(8, "frames of each training (and validation) video", _at_least(1))
    test: int = _setting(32, "frames of each test video", _at_least(1))


@dataclass(frozen=True)
class DataAug:
    """Training augmentation, DeepfakeBench's keys; milder than its defaults, for fine-tuning."""

    flip_prob: float = _setting(0.3, "probability of a horizontal flip", _within(0, 1))
    rotate_prob: float = _setting(0.2, "probability of a rotation", _within(0, 1))
    rotate_limit: tuple[float, float] = _setting((-5.0, 5.0), "rotation range in degrees", _ordered)
    blur_prob: float = _setting(0.2, "probability of a Gaussian blur", _within(0, 1))
    blur_limit: tuple[int, int] = _setting((3, 7), "range of the blur's kernel size in pixels", _blur_limit)
    brightness_prob: float = _setting(
        0.3, "probability of a brightness, contrast or colour change", _within(0, 1)
    )
    brightness_limit: tuple[float, float] = _setting(
        (-0.05, 0.05), "range of the brightness factor", _ordered
    )
    contrast_limit: tuple[float, float] = _setting((-0.05, 0.05), "range of the contrast factor", _ordered)
    quality_lower: int = _setting(60, "lowest JPEG quality", _within(1, 100))
    quality_upper: int = _setting(100, "highest JPEG quality", _within(1, 100))


@dataclass(frozen=True)
class Optimizer:
    """The optimiser; ``optimizer.adam.lr`` and the like, upstream's form, set the same values."""

    type: Literal["adam", "adamw", "sgd"] = _setting("adam", "optimiser")
    lr: float = _setting(1e-4, "learning rate", _above(0))
    weight_decay: float = _setting(1e-4, "weight decay", _at_least(0))
    beta1: float = _setting(0.9, "Adam's first moment decay", _within(0, 1))
    beta2: float = _setting(0.999, "Adam's second moment decay", _within(0, 1))
    eps: float = _setting(1e-8, "Adam's denominator floor", _above(0))
    amsgrad: bool = _setting(False, "Adam's AMSGrad variant")
    momentum: float = _setting(0.9, "SGD's momentum", _within(0, 1))


@dataclass(frozen=True)
class Loss:
    """Terms of the training loss (arXiv 2411.15633, eq. 7)."""

    class_weights: Literal["balanced"] | tuple[float, float] | None = _setting(
        None, "null, 'balanced' or [weight of real, weight of fake]"
    )
    label_smoothing: float = _setting(0.0, "label smoothing of the cross-entropy", _within(0, 0.999))
    orth_weight: float = _setting(0.0, "weight of the orthogonality loss (eq. 4)", _at_least(0))
    ksv_weight: float = _setting(0.0, "weight of the singular-value loss (eq. 6)", _at_least(0))
    orth_form: Literal["paper", "released"] = _setting(
        "paper", "the paper's or the released code's definition"
    )


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the selection metric no longer improves."""

    patience: int | None = _setting(
        None, "epochs without improvement before stopping; null never", _at_least(1)
    )
    min_delta: float = _setting(0.0, "smallest change that counts as improvement", _at_least(0))


@dataclass(frozen=True)
class Settings:
    """All settings of one run, resolved, typed and frozen.

    ``host_only`` holds what only a host reads (known by name, passed through unread).
    """

    # model
    model_name: str = _setting("effort_finetune", "detector, by its name in the host's DETECTOR registry")
    trainer: str | None = _setting(
        "effort_finetune", "trainer in the host's TRAINER registry; null is the host's own"
    )
    clip_path: str = _setting(
        "openai/clip-vit-large-patch14",
        "plain CLIP to start from when no Effort checkpoint is given: folder, file or hub id",
        path=True,
    )
    pretrained_weights: str | None = _setting(
        None, "checkpoint to start from, in any known layout", path=True
    )
    resume: str | None = _setting(None, "folder of an interrupted run, or its ckpt_last.pth", path=True)
    allow_pickle: bool = _setting(
        False, "read checkpoints that run code on loading; only for files you trust"
    )
    allow_base_mismatch: bool = _setting(
        False, "put an adapter on another base than its own; the results say so"
    )
    residual_rank: int = _setting(
        1, "trainable rank k of each residual when plain CLIP is decomposed", _at_least(1)
    )
    targets: tuple[str, ...] = _setting(
        ("self_attn.*_proj",), "glob patterns of decomposed layers inside a block"
    )
    layer_range: tuple[int, int] | None = _setting(
        None, "[first, last] block to adapt, 0-based, inclusive", _ordered
    )
    head_width: int | None = _setting(
        None, "width of an attention head; null: what the weights state, else 64", _at_least(1)
    )
    hidden_act: Literal["quick_gelu", "gelu"] | None = _setting(
        None, "activation of the tower's MLP; null: what the weights state, else OpenAI's quick_gelu"
    )
    freeze_backbone: bool = _setting(True, "freeze everything but residuals and head")
    train_svd_residuals: bool = _setting(True, "train S, U and V of the residuals")
    train_classification_head: bool = _setting(True, "train the head")
    unfreeze: tuple[str, ...] = _setting(
        (), "patterns of parameter names to train as well (glob or substring)"
    )
    tune_mode: Literal["head", "residual", "layernorm", "full"] | None = _setting(
        None, "a named choice of what is trained, in place of the three switches above"
    )
    loss: Loss = _setting(Loss(), "training loss")

    # data
    train_dataset: tuple[str, ...] = _setting((), "training datasets")
    val_dataset: tuple[str, ...] | None = _setting(
        None, "datasets of the val split; null: the training datasets"
    )
    test_dataset: tuple[str, ...] = _setting((), "test datasets")
    compression: Literal["raw", "c23", "c40"] = _setting("c23", "FF++ compression level")
    lmdb: bool = _setting(True, "read crops from LMDB (false: from plain files)")
    lmdb_dir: str = _setting("./datasets/lmdb", "folder of the <name>_lmdb databases", path=True)
    rgb_dir: str = _setting("./datasets/rgb", "folder of the plain crops", path=True)
    dataset_json_folder: str = _setting(
        "./preprocessing/dataset_json", "folder of the <name>.json files", path=True
    )
    label_dict: Mapping[str, int] = _setting({}, "label groups of the JSON files: 0 is real, >= 1 is fake")
    frame_num: FrameNum = _setting(FrameNum(), "frames used of each video")
    frame_sampling: Literal["uniform", "first"] = _setting(
        "uniform", "which frames: evenly spaced, or the first n"
    )
    max_missing_rate: float = _setting(
        0.01, "share of frames that may be unreadable before a run fails", _within(0, 1)
    )
    resolution: int = _setting(224, "input size in pixels; has to be the checkpoint's", _at_least(1))
    mean: tuple[float, float, float] = _setting((0.48145466, 0.4578275, 0.40821073), "RGB mean (CLIP's)")
    std: tuple[float, float, float] = _setting((0.26862954, 0.26130258, 0.27577711), "RGB deviation (CLIP's)")
    use_data_augmentation: bool = _setting(True, "augment training frames")
    data_aug: DataAug = _setting(DataAug(), "training augmentation")
    train_batchSize: int = _setting(8, "frames in a training batch", _at_least(1))
    test_batchSize: int = _setting(32, "frames in an evaluation batch", _at_least(1))
    workers: int = _setting(2, "loader processes; 0 loads in the main one", _at_least(0))
    balance: Literal["none", "oversample"] = _setting(
        "none", "draw both classes equally often, or as they come"
    )

    # training
    optimizer: Optimizer = _setting(Optimizer(), "optimiser")
    lr_scheduler: Literal["cosine", "step", "linear"] | None = _setting(
        None, "schedule, stepped once an epoch"
    )
    lr_T_max: int = _setting(
        10, "cosine and linear: epochs from the first to the last learning rate", _at_least(1)
    )
    lr_eta_min: float = _setting(1e-6, "cosine and linear: the last learning rate", _at_least(0))
    lr_step: int = _setting(5, "step: epochs between two reductions", _at_least(1))
    lr_gamma: float = _setting(0.1, "step: factor of a reduction", _within(0, 1))
    nEpochs: int = _setting(10, "epochs, exactly", _at_least(1))
    start_epoch: int = _setting(0, "number of the first epoch", _at_least(0))
    save_epoch: int = _setting(1, "epochs between two writes of ckpt_last.pth", _at_least(1))
    rec_iter: int = _setting(50, "steps between two progress lines in the log", _at_least(1))
    accumulation_steps: int = _setting(1, "batches added up before an optimiser step", _at_least(1))
    clip_grad_norm: float | None = _setting(None, "largest gradient norm; null does not clip", _above(0))
    precision: Literal["auto", "float32", "bf16", "fp16"] = _setting(
        "auto", "arithmetic of the forward pass (autocast)"
    )
    early_stopping: EarlyStopping = _setting(EarlyStopping(), "early stopping")
    select_on: Literal["val", "last", "test"] = _setting(
        "val", "split that chooses the checkpoint; 'test' is an oracle"
    )
    metric_scoring: str = _setting("video_auc", "metric that chooses the checkpoint")
    manualSeed: int = _setting(1024, "seed of the run", _at_least(0))
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps")

    # evaluation and output
    threshold: float = _setting(
        0.5, "fake probability above which a frame or video is called fake", _within(0, 1)
    )
    bootstrap_samples: int = _setting(
        1000, "resamples of videos for the 95 % intervals; 0 leaves them out", _at_least(0)
    )
    log_dir: str = _setting(
        "./training/logs", "folder of the run folders when no output_dir is given", path=True
    )
    output_dir: str | None = _setting(None, "folder of this run", path=True)
    save_to: str | None = _setting(
        "finetuned/effort_{train_dataset}.pth",
        "where the selected checkpoint is published; null does not",
        path=True,
    )

    host_only: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "", "check": None, "path": False}
    )

    def to_dict(self) -> dict[str, Any]:
        """Returns the complete nested dictionary a host's code can read.

        Lists instead of tuples; ``optimizer`` also in upstream's form ``optimizer.<type>.lr``.
        """
        tree = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "host_only"}
        optimizer = tree["optimizer"]
        optimizer[self.optimizer.type] = {k: v for k, v in optimizer.items() if k != "type"}
        return {**_plain(self.host_only), **tree}

    def changed(self, **values: Any) -> Settings:
        """Returns a copy with these top-level values in place of the present ones."""
        return replace(self, **values)

    def digest(self) -> str:
        """Returns a SHA-256 over what can change a number: paths and host-only keys are left out."""
        tree = {
            f.name: _plain(getattr(self, f.name))
            for f in fields(self)
            if f.name != "host_only" and not f.metadata["path"]
        }
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


# Keys that DeepfakeBench's own code reads and the plugin does not.
HOST_ONLY_KEYS = frozenset(
    [
        "pretrained",
        "backbone_name",
        "backbone_config",
        "all_dataset",
        "with_mask",
        "with_landmark",
        "logdir",
        "save_ckpt",
        "save_feat",
        "loss_func",
        "losstype",
        "ngpu",
        "cuda",
        "cudnn",
        "SWA",
        "save_avg",
        "mode",
        "dry_run",
        "ddp",
        "local_rank",
        "task_target",
        "video_mode",
        "clip_size",
        "optimizer.sam",
        "dataset_type",
        "mixup_prob",
    ]
)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
