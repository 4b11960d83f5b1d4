"""All settings of a run as one object that cannot be invalid.

The attribute tree is the YAML tree, with DeepfakeBench's key names where it has one
(``training/config/detector/*.yaml`` and ``training/config/train_config.yaml`` in the host).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from effort_finetune.config.data_keys import DataKeys
from effort_finetune.config.model_keys import ModelKeys
from effort_finetune.config.output_keys import OutputKeys
from effort_finetune.config.section import notes, setting
from effort_finetune.config.training_keys import TrainingKeys


class Settings(OutputKeys, TrainingKeys, DataKeys, ModelKeys):
    """All settings of one run: typed, within bounds, frozen.

    ``host_only`` holds what only a host reads (known by name, passed through unread).

    Args:
        values: Keys with values, groups as mappings: ``Settings(nEpochs=3, optimizer={"lr": 1e-3})``.

    Raises:
        UserError: If a key is unknown or a value does not fit; all of them at once.
    """

    host_only: Mapping[str, Any] = setting({}, "what only a host's own code reads")

    def changed(self, **values: Any) -> Settings:
        """Returns a copy with these top-level values in place of the present ones.

        Raises:
            UserError: If one is unknown or does not fit.
        """
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **values})

    def by_stage(self) -> tuple[Settings, ...]:
        """Returns the complete settings of each stage; empty where the run has none."""
        return tuple(self.changed(stages=(), **stage.over(self)) for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Returns the complete nested dictionary a host's code can read.

        Lists instead of tuples; ``optimizer`` also in upstream's form ``optimizer.<type>.lr``.
        """
        tree = self.model_dump(mode="json", exclude={"host_only"})
        optimizer = tree["optimizer"]
        optimizer[self.optimizer.type] = {k: v for k, v in optimizer.items() if k != "type"}
        return {**_plain(self.host_only), **tree}

    def digest(self) -> str:
        """Returns a SHA-256 over what can change a number, without paths, trackers and host-only keys."""
        paths = {name for name, field in type(self).model_fields.items() if notes(field).get("path")}
        tree = self.model_dump(mode="json", exclude={"host_only", "tracker", *paths})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
