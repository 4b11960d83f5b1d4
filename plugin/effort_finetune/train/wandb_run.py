"""The curves of a run in Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The axis of every curve: W&B's own step refuses to go back, which a resumed run does.
_AXIS = "batch"
_ID = "wandb_run_id.txt"


class WandbRun:
    """A run of the project ``effort-finetune`` (``WANDB_PROJECT`` names another).

    Without a key (``WANDB_API_KEY`` or ``wandb login``) and without ``WANDB_MODE`` it is offline: a prompt
    for a key would wait for ever. ``wandb sync`` sends an offline run later.

    Args:
        folder: The run folder; W&B's files go below it.
        settings: The run's settings, flat.
        first_step: Step at which a resumed run goes on, in the same W&B run; ``None`` begins one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], first_step: int | None) -> None:
        import wandb

        known = folder / _ID
        own = (
            known.read_text(encoding="utf-8").strip() if first_step is not None and known.is_file() else None
        )
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "effort-finetune"),
            name=folder.name,
            id=own,
            resume=None if own is None else "allow",
            dir=str(folder),
            mode=None if "WANDB_MODE" in os.environ else ("online" if _has_key(wandb) else "offline"),
            config=dict(settings),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, init_timeout=30
            ),
        )
        self._run.define_metric(_AXIS)
        self._run.define_metric("*", step_metric=_AXIS)
        known.write_text(f"{self._run.id}\n", encoding="utf-8")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Sends a point of each curve."""
        self._run.log({**values, _AXIS: step})

    def close(self, last: Mapping[str, float]) -> None:
        """Puts the last value of each measured curve into the run's summary, and ends it."""
        self._run.summary.update(dict(last))
        self._run.finish()


def _has_key(wandb: Any) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    from requests.utils import get_netrc_auth  # where `wandb login` leaves it

    return get_netrc_auth(wandb.Settings().base_url) is not None
