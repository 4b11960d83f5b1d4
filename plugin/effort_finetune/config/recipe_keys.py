"""Settings of one stage of training: optimiser, schedule and length."""

from __future__ import annotations

from typing import Literal

from effort_finetune.config.kinds import (
    AboveZero,
    AtLeastZero,
    BelowOne,
    Count,
    CountOrZero,
    Share,
    Truth,
    UpToAlmostOne,
    UpToOne,
)
from effort_finetune.config.section import Section, setting


class Optimizer(Section):
    """The optimiser; ``optimizer.adam.lr`` and the like, upstream's form, set the same values."""

    type: Literal["adam", "adamw", "sgd", "sam"] = setting(
        "adam", "optimiser; sam ascends, then steps as sgd"
    )
    lr: AboveZero = setting(1e-4, "learning rate")
    lr_head: AboveZero | None = setting(None, "learning rate of the head; null: lr")
    lr_residual: AboveZero | None = setting(None, "learning rate of the residuals; null: lr")
    lr_unfrozen: AboveZero | None = setting(None, "learning rate of all other trained weights; null: lr")
    layer_decay: UpToOne = setting(1.0, "factor of the rate from each block of the tower to the one below")
    weight_decay: AtLeastZero = setting(1e-4, "weight decay")
    beta1: BelowOne = setting(0.9, "Adam's first moment decay")
    beta2: BelowOne = setting(0.999, "Adam's second moment decay")
    eps: AboveZero = setting(1e-8, "Adam's denominator floor")
    amsgrad: Truth = setting(False, "Adam's AMSGrad variant")
    momentum: Share = setting(0.9, "SGD's momentum")
    rho: AboveZero = setting(0.05, "SAM's radius: how far it ascends before it takes the gradient")


class EarlyStopping(Section):
    """Stop when the selection metric no longer improves."""

    patience: Count | None = setting(None, "epochs without improvement before stopping; null never")
    min_delta: AtLeastZero = setting(0.0, "smallest change that counts as improvement")


class RecipeKeys(Section):
    """The keys at the top level that say how a stage is trained."""

    optimizer: Optimizer = setting(Optimizer(), "optimiser")
    lr_scheduler: Literal["cosine", "step", "linear", "onecycle", "plateau"] | None = setting(
        None, "schedule of the learning rate"
    )
    lr_per: Literal["epoch", "step"] = setting(
        "epoch", "cosine, step, linear and warm-up move the rate each epoch or each step; onecycle each step"
    )
    lr_warmup: AtLeastZero = setting(0.0, "epochs in which the rate rises from lr_warmup_start; 0 none")
    lr_warmup_start: Share = setting(0.01, "warm-up: share of the rate that it begins at")
    lr_T_max: Count = setting(10, "cosine and linear: epochs from the first to the last learning rate")
    lr_eta_min: AtLeastZero = setting(1e-6, "cosine and linear: the last learning rate")
    lr_step: Count = setting(5, "step: epochs between two reductions")
    lr_gamma: Share = setting(0.1, "step and plateau: factor of a reduction")
    lr_patience: CountOrZero = setting(2, "plateau: epochs without a better selection metric that are waited")
    ema_decay: UpToAlmostOne | None = setting(
        None, "decay of the running average of what is trained, which is then measured and saved; null none"
    )
    nEpochs: Count = setting(10, "epochs, exactly")
    accumulation_steps: Count = setting(1, "batches added up before an optimiser step")
    clip_grad_norm: AboveZero | None = setting(None, "largest gradient norm; null does not clip")
    early_stopping: EarlyStopping = setting(EarlyStopping(), "early stopping")
