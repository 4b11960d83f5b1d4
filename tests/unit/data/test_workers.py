"""Loader processes are as many as the machine bears; they neither hang a run nor heed a signal."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time
from types import SimpleNamespace

import pytest
from torch.utils.data._utils import signal_handling

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.interrupt import Interrupted, InterruptGuard
from effort_finetune.data import worker_limits as limits
from effort_finetune.data import workers as room
from effort_finetune.data.frames import open_frames
from effort_finetune.data.loader import make_loader

from .conftest import Bench, pair_of_groups

MB = 1 << 20


@pytest.mark.parametrize(
    ("free", "asked", "batch", "fit"),
    [
        (64 * MB, 2, 9 * MB, 1),
        (1 * MB, 2, 9 * MB, 0),
        (0, 2, 1, 0),
        (8192 * MB, 4, 9 * MB, 4),
        (64 * MB, 2, 9000, 2),
    ],
)
def test_shared_memory_decides_how_many_start(monkeypatch, caplog, free, asked, batch, fit):
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(limits.sys, "platform", "linux")
    with caplog.at_level(logging.WARNING):
        assert limits.affordable_workers(asked, batch) == fit
    assert ("--shm-size" in caplog.text) == (fit < asked)


@pytest.mark.parametrize(("soft", "fit"), [(24, 0), (64, 0), (80, 1), (4096, 2)])
def test_open_files_decide_how_many_start(monkeypatch, caplog, soft, fit):
    monkeypatch.setattr(limits, "_free_shared_memory", lambda: None)
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (soft, soft))
    monkeypatch.setattr(limits.os, "listdir", lambda _: range(20))
    with caplog.at_level(logging.WARNING):
        assert limits.affordable_workers(2, 1) == fit
    assert ("ulimit -n" in caplog.text) == (fit < 2)


def test_a_soft_bound_is_raised_before_workers_are_given_up():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 512:
        pytest.skip("the hard bound is low here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert limits._free_files(100) >= 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_workers_than_cores_can_feed_are_an_error():
    with pytest.raises(UserError, match="workers; got 100000; expected at most"):
        limits.affordable_workers(100_000, 1)


@pytest.fixture
def deaf_to_deaths():
    """Torch's own handler raises wherever the main thread is when a worker dies: pytest itself, at times."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    installed, signal_handling._SIGCHLD_handler_set = signal_handling._SIGCHLD_handler_set, True
    yield
    signal_handling._SIGCHLD_handler_set = installed
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def loader(embedded: Bench, monkeypatch, deaf_to_deaths):
    monkeypatch.setattr(room, "_POLL", 0.1)
    embedded.write(pair_of_groups(6))
    frames = open_frames(embedded.host, embedded.settings(), split="train", names=["UADFV"])
    return make_loader(frames, batch_size=1, workers=1)


def drain(batches, pause=0.0):
    for _ in batches:
        time.sleep(pause)


def test_a_killed_worker_is_one_line(loader):
    batches = iter(loader)
    next(batches)
    os.kill(batches._workers[0].pid, signal.SIGKILL)
    with pytest.raises(RunFailure, match="a loader process broke off .*--workers 0"):
        drain(batches, pause=0.05)


def test_a_signal_to_the_group_leaves_the_workers_to_their_parent(loader):
    batches = iter(loader)
    seen = [next(batches)["index"].item()]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
        os.kill(batches._workers[0].pid, number)
    seen += [batch["index"].item() for batch in batches]
    assert seen == list(range(len(loader.dataset)))


class Stuck:
    """Frames of which one never comes, as from a disk that does not answer."""

    def __init__(self, frames):
        self.frames, self.rows, self.resolution = frames, frames.rows, frames.resolution

    def __len__(self):
        return len(self.frames)

    def set_epoch(self, seed, epoch):
        self.frames.set_epoch(seed, epoch)

    def __getitem__(self, index):
        if index == 3:
            time.sleep(600)
        return self.frames[index]


@pytest.fixture
def stuck(loader):
    return make_loader(Stuck(loader.dataset), batch_size=1, workers=1)


def test_a_stuck_worker_ends_the_run_and_goes(stuck, monkeypatch):
    monkeypatch.setattr(room, "TIMEOUT", 0.5)
    batches = iter(stuck)
    worker = batches._workers[0]
    with pytest.raises(RunFailure, match="no batch came"):
        drain(batches)
    batches._shutdown_workers()  # with SIGKILL in the end: it is deaf to SIGTERM
    worker.join(5)
    assert not worker.is_alive()


def test_the_first_ctrl_c_ends_a_wait(stuck):
    batches = iter(stuck)
    next(batches)
    with InterruptGuard():
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.alarm(1)
        with pytest.raises(Interrupted):
            drain(batches)
    batches._shutdown_workers()
