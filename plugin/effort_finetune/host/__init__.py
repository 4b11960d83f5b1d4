"""The only room that knows a host's file names: finds one, opens it, installs into it."""

from effort_finetune.host.host import Host, open_host
from effort_finetune.host.job import Job
from effort_finetune.host.locate import enclosing_host, locate, named_host

__all__ = ["Host", "Job", "enclosing_host", "locate", "named_host", "open_host"]
