"""The JSON Schema of a settings file, for editors; ``settings.schema.json`` is what ships."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from effort_finetune.config.aliases import ALIASES
from effort_finetune.config.host_only_keys import HOST_ONLY_KEYS
from effort_finetune.config.schema import Settings


def json_schema() -> dict[str, Any]:
    """Returns the schema: our keys with kinds and bounds, their other names, and what only a host reads."""
    schema = Settings.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "effort-finetune settings"
    top, groups = schema["properties"], schema["$defs"]
    del top["host_only"]
    for name in sorted(HOST_ONLY_KEYS):
        if "." not in name:
            top[name] = {"description": "read by the host's own code only"}
    for optimizer in ("adam", "adamw", "sgd", "sam"):
        groups["Optimizer"]["properties"][optimizer] = {
            "type": "object",
            "description": f"the same keys for {optimizer}, where DeepfakeBench has them",
        }
    for name, alias in ALIASES.items():
        group, _, last = name.rpartition(".")
        where = groups[top[group]["$ref"].rpartition("/")[2]]["properties"] if group else top
        where[last] = {"description": f"another name of {alias.key} ({alias.found_in})"}
    for properties in (top, *(group["properties"] for group in groups.values())):
        for entry in properties.values():
            entry.pop("read_by", None)
            entry.pop("path", None)
    return schema


def as_text() -> str:
    """Returns the schema as the shipped file has it."""
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"


def shipped() -> str:
    """Returns the file that ships."""
    return files(__package__).joinpath("settings.schema.json").read_text(encoding="utf-8")
