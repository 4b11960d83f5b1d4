"""A detector that `export --to onnx` wrote, run by ONNX Runtime on the processor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.weights.statement import ENTRY, Statement, of_text

SUFFIX = ".onnx"
#: Property of the file beside the statement: ``fit``, ``weights_sha256``, and of an int8 file how its
#: verdicts compared (``int8``).
ORIGIN = "effort_finetune_onnx"
_OUTPUTS = ("logits", "features")


class OnnxDetector:
    """Answers as the detector does; it has no gradients, so no heat maps.

    Attributes:
        statement: How the file says it is to be used.
        origin: What it was made of, see :data:`ORIGIN`.

    Args:
        path: The file.
        threads: Of one pass; ``None`` leaves it to ONNX Runtime.

    Raises:
        UserError: If ONNX Runtime is missing, or the file is none of ours.
    """

    def __init__(self, path: Path | str, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"--weights {path}",
                got="no onnxruntime here",
                next_step="pip install 'effort-finetune[onnx]'",
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors; they are raised, too
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes have no common base but this
            raise _not_ours(path, visible(str(error), limit=200)) from error
        names = {output.name for output in session.get_outputs()}
        said = session.get_modelmeta().custom_metadata_map
        if not names.issuperset(_OUTPUTS) or ENTRY not in said or ORIGIN not in said:
            raise _not_ours(path, f"outputs {', '.join(sorted(names))}")
        self._session = session
        self.statement: Statement = of_text(said[ENTRY], str(path))
        self.origin: Mapping[str, Any] = json.loads(said[ORIGIN])

    @property
    def fit(self) -> str | None:
        """How pictures became squares in training; None where nobody knows."""
        return self.origin.get("fit")

    def line(self) -> str:
        """What a user should know of the file."""
        parity = self.origin.get("int8")
        if parity is None:
            return "ONNX Runtime on the processor, float32"
        return (
            f"ONNX Runtime on the processor, int8: {parity['flips']} of {parity['files']} verdicts changed "
            "sides when it was made"
        )

    def merged(self) -> AbstractContextManager[None]:
        """Nothing is to be merged: the file holds dense weights."""
        return nullcontext()

    def parameters(self) -> Iterator[torch.Tensor]:
        """One empty tensor, which tells where the answers are: on the processor."""
        yield torch.empty(0)

    def __call__(self, data: Mapping[str, torch.Tensor], inference: bool = True) -> dict[str, torch.Tensor]:
        """Scores ``data['image']``, ``float32[B, 3, H, W]``, normalised.

        Returns:
            ``cls [B, 2]``, ``prob [B]`` and ``feat [B, d]``.
        """
        # With 8 bits the scale of a pass is that of its largest values: alone, a picture's score is its own.
        size = 1 if "int8" in self.origin else len(data["image"])
        passes = [
            self._session.run(list(_OUTPUTS), {"image": part.numpy()}) for part in data["image"].split(size)
        ]
        logits, features = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*passes, strict=True))
        return {"cls": logits, "prob": torch.softmax(logits, dim=1)[:, 1], "feat": features}


def _not_ours(path: Path | str, got: str) -> UserError:
    return UserError(
        f"--weights {path}", got=got, expected="an ONNX file that this version exported",
        next_step="effort-finetune export WEIGHTS --to onnx --output FILE.onnx",
    )  # fmt: skip
