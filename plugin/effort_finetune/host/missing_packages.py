"""Names the package that a host's module imports and this environment lacks."""

from __future__ import annotations

import ast
from pathlib import Path

from effort_finetune.core.errors import UserError

#: Import names whose package on the index has another name.
PIP_NAMES = {
    "clip": "git+https://github.com/openai/CLIP.git",  # PyPI's clip is another project
    "cv2": "opencv-python-headless",
    "dlib": "dlib-bin",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "efficientnet_pytorch": "efficientnet-pytorch",
    "pytorchvideo": "pytorchvideo",
}


def missing_package(module: str, importer: str, reason: str) -> UserError:
    """Returns the one line for a package that a host's module cannot do without."""
    top = module.partition(".")[0]
    return UserError(
        f"the host's {importer} needs the package {top!r}",
        got=reason,
        next_step=f"pip install {PIP_NAMES.get(top, top)}",
    )


def absolute_imports(file: Path) -> list[str]:
    """Returns the absolute module names a file imports at its top level, in order, each once.

    ``from a import b`` counts as ``a.b`` when ``a`` is ``torchvision`` (its ``transforms`` is a module)
    and as ``a`` otherwise.
    """
    tree = ast.parse(file.read_bytes(), filename=str(file))
    names: dict[str, None] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            names.update({alias.name: None for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "torchvision":
                names.update({f"torchvision.{alias.name}": None for alias in node.names})
            else:
                names[node.module] = None
    return list(names)
