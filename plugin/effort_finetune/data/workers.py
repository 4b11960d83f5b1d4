"""Loader processes that can neither hang a run nor outlive it, and whose failures are one line."""

from __future__ import annotations

import time
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from effort_finetune.core import interrupt
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.escaping import visible

#: Seconds without a batch after which workers count as stuck: a network file system may stall for minutes.
TIMEOUT = 600.0
_POLL = 1.0


class PatientLoader(DataLoader[dict[str, Any]]):
    """A loader that ends when it is asked to, when a worker dies, and when none answers for :data:`TIMEOUT`.

    Raises:
        RunFailure: While it is iterated, if a worker was killed or is stuck.
        Interrupted: Likewise, if the run was asked to stop while a batch was waited for.
    """

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if self.num_workers == 0:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        return _PatientIterator(self)


class _PatientIterator(_MultiProcessingDataLoaderIter):
    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        for worker in self._workers:
            # They ignore SIGTERM, which a scheduler sends to the whole group; joining one would never end.
            popen = worker._popen  # type: ignore[attr-defined]
            popen.terminate = popen.kill

    def _get_data(self) -> Any:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if interrupt.requested():
                raise interrupt.Interrupted
            try:
                came, data = self._try_get_data(_POLL)
            except (
                RuntimeError,
                OSError,
                EOFError,
            ) as error:  # a worker that is gone, met where it is missed
                if interrupt.requested():
                    raise interrupt.Interrupted from error
                reason = visible((str(error) or type(error).__name__).splitlines()[0])
                raise RunFailure(
                    f"a loader process broke off ({reason}); next: look for want of memory in the system's "
                    "log, or run with --workers 0"
                ) from error
            if came:
                return data
        raise RunFailure(
            f"no batch came from the loader processes for {TIMEOUT:.0f} s; next: look whether the data's "
            "disk answers, or run with --workers 0"
        )
