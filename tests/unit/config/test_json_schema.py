"""The JSON Schema for editors: what ships is what the code says, and it accepts what the resolver accepts."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from test_aliases import FORK

from effort_finetune.config import json_schema

ROOT = Path(__file__).parents[3]


def test_the_shipped_schema_is_current():
    assert json_schema.shipped() == json_schema.as_text(), "make generate"


SETTINGS = [
    ROOT / "DeepfakeBench/training/config/detector/effort_finetune.yaml",
    *sorted((ROOT / "configs/presets").glob("*.yaml")),
]


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_the_shipped_files_fit_it(path):
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema.json_schema())


def test_a_forks_file_fits_it():
    jsonschema.validate(yaml.safe_load(FORK), json_schema.json_schema())


@pytest.mark.parametrize("text", ["nEpochs: 0", "nEpoch: 3", "precision: half", "data_aug: {flip: 1}"])
def test_what_the_resolver_refuses_does_not(text):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema.json_schema())
