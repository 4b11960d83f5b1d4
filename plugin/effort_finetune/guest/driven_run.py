"""A run that a host's script drives, as results tell of it: what it read, what the selected weights score.

The loaders, the model and the optimiser are the host's; what is written of them is what ``finetune`` writes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from effort_finetune.core.errors import RunFailure
from effort_finetune.core.precision import Precision
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.guest.loader_frames import run_data
from effort_finetune.guest.scoring import measure_loader
from effort_finetune.model.chosen_detector import OUR_NAME, ChosenDetector
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.data import RunData, training_warnings
from effort_finetune.train.engine import Engine
from effort_finetune.train.finetuning import publish_selected, read_back
from effort_finetune.train.run_files import RunPaths
from effort_finetune.train.run_log import LOG_NAME
from effort_finetune.train.run_record import log_data, log_outcome, write_results
from effort_finetune.train.setup import Prepared
from effort_finetune.train.validation import numbers_of


class DrivenRun:
    """What one call of a host's loop trains and tests with.

    Args:
        engine: The run.
        device: Where its model is.
        precision: Of the forward pass.
        loader: The host's training batches.
        tests: The host's test loaders by dataset.
        published: Where the selected weights go beside the run folder.
        started: ``time.perf_counter()`` at the start of the run.
    """

    def __init__(
        self,
        engine: Engine,
        device: torch.device,
        precision: Precision,
        loader: DataLoader[Any],
        tests: Mapping[str, DataLoader[Any]],
        published: Path | None,
        started: float,
    ) -> None:
        self._engine, self._device, self._precision = engine, device, precision
        self.loader, self.tests = loader, tests
        self._published, self._started = published, started
        self._tested: dict[str, DatasetResult] = {}
        self._timings: dict[str, float] = {}
        self._said = False

    @cached_property
    def data(self) -> RunData:
        """What the loaders read."""
        job = self._engine.job
        return run_data(job.host, job.settings, self.loader, self.tests)

    def log_start(self) -> None:
        """Says once what is trained and tested on."""
        if not self._said:
            self._said = True
            log_data(self._engine.reports.logger, self.data, self._engine.job.settings)

    def measured(self, name: str, *, samples: int = 0, folder: Path | None = None) -> DatasetResult:
        """Scores the model as it is on one of the host's test loaders."""
        return measure_loader(
            self._engine.model,
            self.tests[name],
            self.data.test[name],
            self._engine.job,
            name=name,
            device=self._device,
            precision=self._precision,
            samples=samples,
            folder=folder,
        )

    def finish(self) -> None:
        """Measures the selected weights, read back from their file, and writes and logs the results.

        Raises:
            RunFailure: If the file is not the one that this run wrote, or a dataset cannot be measured.
        """
        engine = self._engine
        settings, started = engine.job.settings, time.perf_counter()
        engine.model.load_state_dict(read_back(engine))
        for name in self.tests:
            result = self.measured(name, samples=settings.bootstrap_samples, folder=engine.folder)
            self._tested[name] = result
            if result.block["status"] == "failed":
                raise RunFailure(result.block["reason"])
            numbers = numbers_of(result)
            result.block["warnings"] += training_warnings(name, result.dataset, "test", self.data)
            result.block["warnings"].append("an oracle: the labels of the test sets chose the checkpoint")
            engine.reports.curves("test", name, numbers, engine.steps_done(len(self.loader)))
        self._timings["test_s"] = time.perf_counter() - started
        prepared = self._prepared()
        publish_selected(prepared)
        log_outcome(engine.reports.logger, prepared.paths, self._write(prepared, None))

    def write(self, failure: RunFailure) -> RunFailure:
        """Writes the results of a run that could not go on, and returns why it could not."""
        try:
            self._write(self._prepared(), failure)
        except Exception as error:  # the first reason is the one to tell
            return RunFailure(f"{failure}; results.json could not be written ({error})")
        return failure

    def _write(self, prepared: Prepared, failure: RunFailure | None) -> dict[str, Any]:
        total = self._engine.processes.seconds()
        return write_results(
            prepared,
            tested=DatasetResults(self._tested),
            failure=failure,
            published=prepared.paths.published if failure is None else None,
            timings={
                "process_s": time.perf_counter() - self._started,
                "total_s": total,
                **self._timings,
            },
        )

    def _prepared(self) -> Prepared:
        engine = self._engine
        ours = isinstance(engine.model, EffortFinetuneDetector)
        asked = engine.job.settings.model_name
        published = self._published if engine.job.settings.save_ckpt else None
        return Prepared(
            engine.job,
            ChosenDetector(OUR_NAME if ours else asked, asked, ours),
            self._device,
            self._precision,
            self.data,
            engine.model,
            engine,
            RunPaths(engine.folder, (engine.folder / LOG_NAME,), published),
            None,
        )
