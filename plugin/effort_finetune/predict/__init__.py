"""A file to a verdict; the package itself can be called.

``effort_finetune.predict`` is a public function and, since Python puts every imported subpackage into its
parent, this package: calling it is calling that function.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A module that is called as :func:`effort_finetune.predict.predict_files.predict`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from effort_finetune.predict.predict_files import predict

        return predict(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
