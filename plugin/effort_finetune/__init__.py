"""Fine-tuning and honest measurement of the Effort deepfake detector inside DeepfakeBench.

The public Python API; everything else may move. Nothing of it is imported before it is used:

>>> import effort_finetune as ef
>>> host = ef.open_host("DeepfakeBench")                                          # doctest: +SKIP
>>> settings = host.settings("train", train_dataset=["UADFV"], nEpochs=3)         # doctest: +SKIP
>>> outcome = ef.finetune(settings, host)                                         # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from effort_finetune.core.version import __version__ as __version__

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.evaluate.evaluation import evaluate
    from effort_finetune.host import open_host
    from effort_finetune.model.load_detector import load_detector
    from effort_finetune.predict.predict_files import predict
    from effort_finetune.train.finetuning import finetune
    from effort_finetune.weights.reader import read_checkpoint


__all__ = ["Settings", "evaluate", "finetune", "load_detector", "open_host", "predict", "read_checkpoint"]

_PLACES = {
    "Settings": "effort_finetune.config",
    "evaluate": "effort_finetune.evaluate.evaluation",
    "finetune": "effort_finetune.train.finetuning",
    "load_detector": "effort_finetune.model.load_detector",
    "open_host": "effort_finetune.host",
    "predict": "effort_finetune.predict.predict_files",
    "read_checkpoint": "effort_finetune.weights.reader",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562): torch takes seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
