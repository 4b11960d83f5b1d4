"""The curves of a run in MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

_ID = "mlflow_run_id.txt"
#: What MLflow takes in one request, and of one value.
_BATCH, _LONGEST = 100, 500
#: A server that does not answer holds a run up for seconds, not for the minutes of MLflow's own defaults.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MlflowRun:
    """A run of the experiment ``effort-finetune`` (``MLFLOW_EXPERIMENT_NAME`` names another).

    It goes to ``MLFLOW_TRACKING_URI``; without one to ``mlflow.db`` in the run folder.

    Args:
        folder: The run folder.
        settings: The run's settings, flat.
        first_step: Step at which a resumed run goes on, in the same MLflow run; ``None`` begins one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], first_step: int | None) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        known = folder / _ID
        if first_step is not None and known.is_file():
            self._id = known.read_text(encoding="utf-8").strip()
            self._client.set_terminated(self._id, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "effort-finetune")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        known.write_text(f"{self._id}\n", encoding="utf-8")
        params = [Param(key, value[:_LONGEST]) for key, value in settings.items()]
        for start in range(0, len(params), _BATCH):
            self._client.log_batch(self._id, params=params[start : start + _BATCH])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Sends a point of each curve."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_named(tag), float(value), now, step) for tag, value in values.items()]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._id, metrics=metrics[start : start + _BATCH])

    def close(self, last: Mapping[str, float]) -> None:
        """Ends the run; MLflow's table shows the last value of every curve by itself."""
        self._client.set_terminated(self._id)


def _named(tag: str) -> str:
    """MLflow takes letters, digits and ``_ - . : /`` and spaces: a dataset's name may hold anything."""
    return "".join(c if c.isalnum() or c in "_-.:/ " else "_" for c in tag)
