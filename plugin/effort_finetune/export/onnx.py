"""Writes the whole detector as ONNX: image in, logits and probability out, any batch size."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import atomic_write
from effort_finetune.export.merged import dense_tower
from effort_finetune.model.backbone import build_tower, fill_buffers
from effort_finetune.model.onnx_detector import ORIGIN
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.deepfakebench_layout import Exported
from effort_finetune.weights.statement import ENTRY, Statement
from effort_finetune.weights.trained_on import told_by

# Of the logits, float32, between torch and onnxruntime; the two sum in different orders.
_TOLERANCE = 1e-3
_OPSET = 18
_LARGEST = 2**31  # bytes of one protobuf message


class _Scorer(nn.Module):
    """``image [B, 3, H, W] -> logits [B, 2], prob [B], features [B, d]``: plain tensors, no dictionaries."""

    def __init__(self, tower: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.tower(image).pooler_output
        logits = self.head(features)
        return logits, torch.softmax(logits, dim=1)[:, 1], features


def export_onnx(checkpoint: Checkpoint, path: Path | str) -> Exported:
    """Exports the detector, residuals merged in float32, and compares the file with it in onnxruntime.

    Input: ``image [batch, 3, H, W]`` float32, normalised. Outputs: ``logits [batch, 2]`` (real, fake),
    ``prob [batch]``, the probability of fake, and ``features [batch, d]``, what the head is given.

    Args:
        checkpoint: The model.
        path: File to write; weights are inside.

    Raises:
        UserError: If onnx, onnxscript or onnxruntime is missing, or the weights do not fit into one file.
        RunFailure: If onnxruntime's logits differ; nothing is written then.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "export to onnx", got=f"no {error.name} here", next_step="pip install 'effort-finetune[onnx]'"
        ) from error
    scorer = _merged(checkpoint)
    size = sum(p.numel() * p.element_size() for p in scorer.parameters())
    if size >= _LARGEST:
        raise UserError(
            "export to onnx", got=f"{size:,} bytes of weights", expected=f"less than {_LARGEST:,}"
        )
    resolution = checkpoint.resolution
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(2, 3, resolution, resolution, generator=generator)
    other_batch = torch.randn(3, 3, resolution, resolution, generator=generator)

    def write(temporary: Path) -> None:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                scorer,
                (example,),
                temporary,
                input_names=["image"],
                output_names=["logits", "prob", "features"],
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            expected, _, _ = scorer(other_batch)
        _state(temporary, checkpoint)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        logits, _ = session.run(["logits", "prob"], {"image": other_batch.numpy()})
        worst = float((torch.from_numpy(logits) - expected).abs().max())
        if not worst <= _TOLERANCE:
            raise RunFailure(
                f"export to onnx: onnxruntime's logits differ by {worst:.1e}; nothing was written"
            )

    return Exported((atomic_write(path, write),))


def _state(path: Path, checkpoint: Checkpoint) -> None:
    """Writes how the model is to be used into the file's properties (``metadata_props``)."""
    import onnx

    model = onnx.load(path)
    said = Statement(resolution=checkpoint.resolution).over(checkpoint.statement)
    origin = {"weights_sha256": checkpoint.sha256, "fit": told_by(checkpoint.path).fit}
    onnx.helper.set_model_props(model, {ENTRY: json.dumps(said.to_dict()), ORIGIN: json.dumps(origin)})
    onnx.save(model, path)


def set_origin(path: Path, **more: Any) -> None:
    """Adds to what a file says of where it comes from."""
    import onnx

    model = onnx.load(path)
    said = {entry.key: entry.value for entry in model.metadata_props}
    said[ORIGIN] = json.dumps({**json.loads(said[ORIGIN]), **more})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, said)
    onnx.save(model, path)


def _merged(checkpoint: Checkpoint) -> _Scorer:
    tower = build_tower(checkpoint.vision_config)
    tower.load_state_dict(dense_tower(checkpoint.tensors), strict=True, assign=True)
    fill_buffers(tower)
    weight, bias = (checkpoint.tensors[f"head.{leaf}"] for leaf in ("weight", "bias"))
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return _Scorer(tower, head).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the exporter's remarks about its own registry and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
