"""Settings of the training: optimiser, schedule, length, arithmetic, and what chooses the checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, StringConstraints

from effort_finetune.config.kinds import (
    Count,
    CountOrZero,
    Says,
    Seed,
    Text,
    Truth,
    items,
)
from effort_finetune.config.recipe_keys import RecipeKeys
from effort_finetune.config.section import DATA, SCORE, setting
from effort_finetune.config.stage_keys import Stages

Device = Annotated[
    str,
    StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"),
    Says("auto, cpu, cuda, cuda:N or mps"),
]


TrackerNames = Annotated[
    tuple[Literal["tensorboard", "csv", "wandb", "mlflow"], ...],
    BeforeValidator(items),
    Says("a list of tensorboard, csv, wandb, mlflow"),
]


class TrainingKeys(RecipeKeys):
    """The keys at the top level that say how it is trained."""

    stages: Stages = setting((), "runs one after the other, each from what the one before it selected")
    start_epoch: CountOrZero = setting(0, "number of the first epoch")
    save_epoch: Count = setting(1, "epochs between two writes of ckpt_last.pth")
    tracker: TrackerNames = setting(("tensorboard",), "where the curves of a run go; an empty list: nowhere")
    rec_iter: Count = setting(50, "steps between two progress lines in the log")
    precision: Literal["auto", "float32", "bf16", "fp16"] = setting(
        "auto", "arithmetic of the forward pass (autocast)", read_by=SCORE
    )
    micro_batch: Count | Literal["auto"] | None = setting(
        None,
        "frames that go through the model at once: memory depends on it, steps do not; null: a whole batch; "
        "auto: the most that fit",
    )
    activation_checkpointing: Truth = setting(
        False, "keep the input of each block alone and run it again for its gradient: less memory, more time"
    )
    offload_activations: Truth = setting(
        False, "keep what the backward pass needs in main memory instead of the GPU's"
    )
    select_on: Literal["val", "last", "test"] = setting(
        "val", "split that chooses the checkpoint; 'test' is an oracle"
    )
    metric_scoring: Text = setting("video_auc", "metric that chooses the checkpoint")
    manualSeed: Seed = setting(1024, "seed of the run", read_by=DATA)
    device: Device = setting("auto", "where it runs", read_by=SCORE)
