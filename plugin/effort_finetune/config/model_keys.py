"""Settings of the model: which weights it starts from, what of it is trained, and the loss."""

from __future__ import annotations

from typing import ClassVar, Literal

from effort_finetune.config.kinds import (
    AtLeastZero,
    BlockRange,
    ClassWeights,
    Count,
    Text,
    Texts,
    Truth,
    UpToAlmostOne,
)
from effort_finetune.config.section import SCORE, TRAIN, Section, setting


class Loss(Section):
    """Terms of the training loss (arXiv 2411.15633, eq. 7)."""

    class_weights: Literal["balanced"] | ClassWeights | None = setting(
        None, "null, 'balanced' or [weight of real, weight of fake]"
    )
    label_smoothing: UpToAlmostOne = setting(0.0, "label smoothing of the cross-entropy")
    orth_weight: AtLeastZero = setting(0.0, "weight of the orthogonality loss (eq. 4)")
    ksv_weight: AtLeastZero = setting(0.0, "weight of the singular-value loss (eq. 6)")
    orth_form: Literal["paper", "released"] = setting(
        "paper", "the paper's or the released code's definition"
    )


class Lora(Section):
    """LoRA and DoRA (``tune_mode``), on the layers that ``targets`` and ``layer_range`` name."""

    rank: Count = setting(8, "rank of the update")
    alpha: Count = setting(8, "the update counts alpha / rank")
    dropout: UpToAlmostOne = setting(0.0, "dropout before the update")


class TrainedKeys(Section):
    """The keys at the top level that say what of the model is trained."""

    layer_range: BlockRange | None = setting(
        None, "[first, last] block to adapt, 0-based, inclusive", read_by=SCORE
    )
    freeze_backbone: Truth = setting(True, "freeze everything but residuals and head", read_by=TRAIN)
    train_svd_residuals: Truth = setting(True, "train S, U and V of the residuals", read_by=TRAIN)
    train_classification_head: Truth = setting(True, "train the head", read_by=TRAIN)
    unfreeze: Texts = setting(
        (), "patterns of parameter names to train as well (glob or substring)", read_by=TRAIN
    )
    tune_mode: Literal["head", "layernorm", "bitfit", "lora", "dora", "residual", "osf", "full"] | None = (
        setting(
            None, "a named choice of what is trained, in place of the three switches above", read_by=TRAIN
        )
    )
    lora: Lora = setting(Lora(), "LoRA and DoRA")


class ModelKeys(TrainedKeys):
    """The keys at the top level that say what the model is."""

    READ_BY: ClassVar[tuple[str, ...]] = SCORE

    model_name: Text = setting("effort_finetune", "detector, by its name in the host's DETECTOR registry")
    trainer: Text | None = setting(
        "effort_finetune", "trainer in the host's TRAINER registry; null is the host's own", read_by=TRAIN
    )
    clip_path: Text = setting(
        "openai/clip-vit-large-patch14",
        "plain CLIP to start from when no Effort checkpoint is given: folder, file or hub id",
        path=True,
    )
    pretrained_weights: Text | None = setting(
        None, "checkpoint to start from, in any known layout", path=True
    )
    resume: Text | None = setting(
        None, "folder of an interrupted run, or its ckpt_last.pth", path=True, read_by=TRAIN
    )
    allow_pickle: Truth = setting(
        False, "read checkpoints that run code on loading; only for files you trust"
    )
    allow_base_mismatch: Truth = setting(
        False, "put an adapter on another base than its own; the results say so"
    )
    allow_preprocessing_mismatch: Truth = setting(
        False, "use the settings' mean, std, interpolation where the weights state others; results say so"
    )
    residual_rank: Count = setting(1, "trainable rank k of each residual when plain CLIP is decomposed")
    targets: Texts = setting(("self_attn.*_proj",), "glob patterns of decomposed layers inside a block")
    head_width: Count | None = setting(
        None, "width of an attention head; null: what the weights state, else 64"
    )
    hidden_act: Literal["quick_gelu", "gelu"] | None = setting(
        None, "activation of the tower's MLP; null: what the weights state, else OpenAI's quick_gelu"
    )
    loss: Loss = setting(Loss(), "training loss")
