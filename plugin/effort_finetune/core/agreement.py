"""What has to be the same in all processes of a run, looked at before the first batch."""

from __future__ import annotations

from collections.abc import Mapping

from effort_finetune.core.errors import UserError
from effort_finetune.core.ranks import Ranks
from effort_finetune.core.version import __version__


def check_agreement(ours: Ranks, settings: str, read: Mapping[str, str]) -> None:
    """Refuses to start processes that would make different runs.

    Args:
        ours: The processes.
        settings: Digest of this one's settings.
        read: Digests of what it has read, by what they are of.

    Raises:
        UserError: Naming the first process that differs from the first one, and in what.
    """
    told = ours.exchange({"version": __version__, "settings": settings, **read})
    for rank, other in enumerate(told):
        differing = [name for name, value in told[0].items() if other.get(name) != value]
        if differing:
            raise UserError(
                f"process {rank} of {ours.size}",
                got=f"other {' and other '.join(differing)} than process 0",
                expected="the same in all processes",
                next_step="give every machine the same command, version and data",
            )
