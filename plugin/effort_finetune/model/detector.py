"""The Effort detector under DeepfakeBench's detector contract."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from effort_finetune.config import Settings, settings_from_config
from effort_finetune.core.errors import UserError
from effort_finetune.core.metrics import batch_metrics
from effort_finetune.model import assembly, losses, low_rank
from effort_finetune.model.backbone import shape_of
from effort_finetune.model.inject import Status, status_of
from effort_finetune.model.layers import residual_layers
from effort_finetune.model.projection import GradientProjection
from effort_finetune.model.regularisers import Regulariser
from effort_finetune.model.trainable import TrainableStatus, configure_trainable
from effort_finetune.weights.peft_names import is_adapted
from effort_finetune.weights.reader import LoadReport
from effort_finetune.weights.statement import Statement
from effort_finetune.weights.vision_config import TRAINED_ON, Said, add_to_metadata, of_entry, of_tower

logger = logging.getLogger(__name__)


class EffortFinetuneDetector(nn.Module):
    """CLIP's vision tower with decomposed attention weights, and a linear head over real and fake.

    Built from ``pretrained_weights`` when given (any layout; an Effort checkpoint needs neither
    CLIP nor an SVD), else from plain CLIP at ``clip_path``, decomposed, with a new head.

    Args:
        config: The settings, or the dictionary a host's ``train.py``/``test.py`` builds.
        tower: A dense tower to use in place of any file, e.g. a random one in tests.

    Attributes:
        backbone: The tower; ``backbone(image).pooler_output`` is ``[B, hidden]``.
        head: ``nn.Linear(hidden, 2)``.
        settings: The typed settings.
        resolution: Input side in pixels.
        load_report: What was loaded from which file; ``None`` for a given tower.
        statement: How the model is to be used; every file it is saved in says so.
        trainable: What is trained.
        trained_on: The datasets it is trained on, which its files state.

    Raises:
        UserError: If the weights cannot be used as the settings ask.
    """

    def __init__(self, config: Mapping[str, Any] | Settings, *, tower: nn.Module | None = None) -> None:
        super().__init__()
        self.settings = config if isinstance(config, Settings) else settings_from_config(config)
        self.config = config
        built = assembly.assemble(self.settings, tower)
        self.backbone, self.head = built.backbone, built.head
        self.resolution: int = shape_of(self.backbone)["image_size"]
        self.load_report: LoadReport | None = built.load_report
        self.statement = Statement(
            self.settings.mean, self.settings.std, self.resolution, interpolation=self.settings.interpolation
        )
        self.class_counts: tuple[int, int] | None = None
        self.trained_on: list[dict[str, Any]] = []
        if self.settings.tune_mode in low_rank.MODES:
            low_rank.wrap(self.backbone, self.settings)
        self.trainable: TrainableStatus = configure_trainable(self, self.settings)
        projected = self.settings.tune_mode == "osf"
        self.projection = GradientProjection(self.backbone) if projected else None
        regularised = self.settings.loss.orth_weight > 0 or self.settings.loss.ksv_weight > 0
        self.regulariser = Regulariser(self.backbone, self.settings.loss) if regularised else None
        logger.info(self.status.line())
        logger.info(self.trainable.line())

    @property
    def status(self) -> Status:
        """What of the tower is decomposed, now."""
        return status_of(self.backbone)

    def build_backbone(self, config: Mapping[str, Any] | Settings) -> nn.Module:
        """Builds a tower from a configuration (part of the host's contract)."""
        settings = config if isinstance(config, Settings) else settings_from_config(config)
        return assembly.assemble(settings).backbone

    def build_loss(self, config: Mapping[str, Any] | Settings) -> nn.Module:
        """Builds the plain classification loss (part of the host's contract); see :meth:`get_losses`."""
        settings = config if isinstance(config, Settings) else settings_from_config(config)
        return nn.CrossEntropyLoss(label_smoothing=settings.loss.label_smoothing)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the state dict; its metadata, which ``torch.save`` keeps, say what no tensor does.

        See :mod:`~effort_finetune.weights.vision_config`.
        """
        state = super().state_dict(*args, **kwargs)
        record = {TRAINED_ON: self.trained_on} if self.trained_on else {}
        said = Said({**shape_of(self.backbone), **record}, self.statement)
        add_to_metadata(state, kwargs.get("prefix", ""), said)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads a state dict; whole weights, LoRA or DoRA merged in them, take the place of their layers."""
        if strict and not is_adapted(state_dict):
            low_rank.unwrap(self.backbone)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = shape_of(self.backbone)
        error_msgs += [
            f"the file is of a tower with {key} {value!r}, this one has {own[key]!r}"
            for key, value in of_tower(of_entry(local_metadata)).items()
            if own[key] != value
        ]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def features(self, data_dict: Mapping[str, Any]) -> Tensor:
        """Returns the pooled features ``[B, hidden]`` of ``data_dict["image"] [B, 3, H, W]``."""
        image = data_dict["image"]
        if tuple(image.shape[-2:]) != (self.resolution, self.resolution):
            raise UserError(
                "image size",
                got="x".join(map(str, image.shape[-2:])),
                expected=f"{self.resolution}x{self.resolution}, the tower's input",
                next_step=f"set resolution: {self.resolution}",
            )
        return self.backbone(image).pooler_output

    def classifier(self, features: Tensor) -> Tensor:
        """Returns logits ``[B, 2]`` (real, fake) of features ``[B, hidden]``, in the head's own precision."""
        # bf16 logits have 8 significant bits: scores would tie, and every ranking metric would feel it.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.to(self.head.weight.dtype))

    def forward(self, data_dict: Mapping[str, Any], inference: bool = False) -> dict[str, Tensor]:
        """Scores a batch.

        Args:
            data_dict: ``image [B, 3, H, W]``, normalised with CLIP's mean and deviation.
            inference: Part of the host's contract; scoring is the same either way.

        Returns:
            ``cls [B, 2]`` logits, ``prob [B]`` probability of fake, ``feat [B, hidden]``.
        """
        features = self.features(data_dict)
        logits = self.classifier(features)
        return {"cls": logits, "prob": torch.softmax(logits.float(), dim=1)[:, 1], "feat": features}

    def set_class_counts(self, real: int, fake: int) -> None:
        """Tells the class counts of the training set, which ``loss.class_weights: balanced`` needs."""
        self.class_counts = (real, fake)

    def get_losses(self, data_dict: Mapping[str, Any], pred_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the loss and its terms.

        Args:
            data_dict: ``label [B]``; 0 is real, anything else fake.
            pred_dict: ``cls [B, 2]``.

        Returns:
            ``overall``, which carries the gradient in training, and for the log, detached:
            ``cls``; in training ``orth`` and ``ksv`` where their weight is not 0; ``real`` and ``fake``
            (plain cross-entropy), each where the batch holds the class. In evaluation mode
            everything is detached, so that a host that keeps the values keeps no graph.
        """
        labels = (data_dict["label"] != 0).long()
        logits = pred_dict["cls"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.training):
            classification = losses.classification_loss(
                logits if self.training else logits.detach(),
                labels,
                class_weights=self.class_weights(),
                label_smoothing=self.settings.loss.label_smoothing,
            )
            # The regularisers do not depend on the batch: a test loss is of the batch alone.
            terms = self.regulariser(self.backbone) if self.regulariser and self.training else {}
            overall = losses.combine(classification, terms, self.settings.loss)
        return {
            "overall": overall,
            "cls": classification.detach(),
            **{name: term.detach() for name, term in terms.items()},
            **losses.per_class_losses(logits, labels),
        }

    def get_train_metrics(
        self, data_dict: Mapping[str, Any], pred_dict: Mapping[str, Tensor]
    ) -> dict[str, float | None]:
        """Returns ``acc``, ``auc``, ``eer`` and ``ap`` of a batch; ``None`` where one class is absent."""
        labels = (data_dict["label"] != 0).long()
        return batch_metrics(labels, torch.softmax(pred_dict["cls"].detach().float(), dim=1)[:, 1])

    def merge(self) -> None:
        """Merges every residual for inference; see ``SVDResidualLinear.merge``."""
        for layer in residual_layers(self.backbone).values():
            layer.merge()

    def unmerge(self) -> None:
        """Undoes :meth:`merge`, to the bit."""
        for layer in residual_layers(self.backbone).values():
            layer.unmerge()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within the context residuals are merged, those that were not before are unmerged after it."""
        layers = [layer for layer in residual_layers(self.backbone).values() if not layer.merged]
        for layer in layers:
            layer.merge()
        try:
            yield
        finally:
            for layer in layers:
                layer.unmerge()

    def class_weights(self) -> Tensor | None:
        """Returns the loss's weight of real and fake, ``[2]``; ``None`` where both count the same.

        Raises:
            UserError: If they are to be balanced in training and nobody told the counts.
        """
        weights = self.settings.loss.class_weights
        if weights is None:
            return None
        if weights != "balanced":
            return torch.tensor(weights)
        if self.class_counts is None:
            if not self.training:
                return None  # an evaluated loss describes the test set, which has no training counts
            raise UserError(
                "loss.class_weights: balanced",
                got="no class counts",
                expected="a trainer that tells them",
                next_step="use trainer effort_finetune, or write [weight of real, weight of fake]",
            )
        return losses.balanced_class_weights(*self.class_counts)
