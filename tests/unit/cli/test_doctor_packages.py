"""What doctor says of an interpreter: what is missing in it, and more than one OpenCV."""

from __future__ import annotations

import configparser
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from effort_finetune.cli import doctor_packages
from effort_finetune.cli.main import main


@pytest.fixture
def environment(monkeypatch):
    """Sets which packages an environment holds."""

    def hold(*names: str) -> None:
        def version(name: str) -> str:
            if name not in names:
                raise metadata.PackageNotFoundError(name)
            return "9.0"

        monkeypatch.setattr(doctor_packages.metadata, "version", version)

    return hold


def test_what_is_looked_for_is_what_setup_cfg_requires():
    config = configparser.ConfigParser()
    config.read(Path(__file__).resolve().parents[3] / "setup.cfg")
    required = {
        re.split("[<>=]", line)[0] for line in config["options"]["install_requires"].split("\n") if line
    }
    assert required == {*doctor_packages.PACKAGES, doctor_packages.OPENCV[0]}


def test_an_environment_without_torch_is_told_and_nothing_else_is_looked_at(environment, capsys):
    environment(*(name for name in doctor_packages.PACKAGES if name != "torch"), "opencv-python")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert (
        f"not installed for this Python: torch\n        -> {sys.executable} -m pip install torch" in printed
    )
    assert "\nhost" not in printed  # the heading; the interpreter's own path may hold the word


@pytest.mark.parametrize(("opencvs", "told"), [(1, False), (2, True)])
def test_two_packages_of_opencv_in_one_environment_are_told(environment, opencvs, told):
    names = doctor_packages.OPENCV[1 : 1 + opencvs]
    environment(*doctor_packages.PACKAGES, *names)
    found = [each for each in doctor_packages.packages() if each.level != "ok"]
    assert [each.level for each in found] == ["warning"] * told
    assert all(name in each.what and name in each.fix for each in found for name in names)
