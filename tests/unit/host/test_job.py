"""Settings, host and command as one object, and the command as it can be typed again."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from toyhost import EMBEDDED

from effort_finetune.config import resolve
from effort_finetune.host import Job, open_host

COMMAND = ("effort-finetune finetune", "--train_dataset", "A B", "--resume", "old", "--nEpochs", "2")


@pytest.fixture
def job():
    return Job(resolve(flags={}, yaml_path=None, host_defaults={}), open_host(EMBEDDED), COMMAND)


def test_other_settings_make_another_job(job):
    other = job.changed(workers=0)
    assert (other.settings.workers, other.host, other.command) == (0, job.host, COMMAND)
    assert job.settings.workers != 0
    with pytest.raises(FrozenInstanceError):
        job.command = ()


def test_the_command_can_be_typed_again(job):
    again = job.command_line("--resume", "new run", without="--resume")
    assert again == "effort-finetune finetune --train_dataset 'A B' --nEpochs 2 --resume 'new run'"
    assert Job(job.settings, job.host).command_line("--resume", "x") == "effort-finetune --resume x"
