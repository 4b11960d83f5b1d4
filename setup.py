"""Puts the files that are not code into a wheel; all metadata is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: What `effort_finetune.core.resources` looks for, in a checkout beside plugin/, in a wheel under bundled/.
BUNDLED = (
    "patches/*.yaml",
    "configs/**/*.yaml",
    "DeepfakeBench/training/finetune.py",
    "DeepfakeBench/training/evaluate_finetune.py",
    "DeepfakeBench/training/detectors/effort_finetune_detector.py",
    "DeepfakeBench/training/config/detector/effort_finetune.yaml",
)


class BuildWithData(build_py):
    """Copies the bundled files beside the modules."""

    def run(self) -> None:
        """Builds as usual, then copies."""
        super().run()
        if self.editable_mode:  # an editable install reads the checkout itself
            return
        target = Path(self.build_lib) / "effort_finetune" / "bundled"
        for pattern in BUNDLED:
            for source in ROOT.glob(pattern):
                destination = target / source.relative_to(ROOT)
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, destination)


setup(cmdclass={"build_py": BuildWithData})
