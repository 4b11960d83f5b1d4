"""The only room that knows a host's file names: finds one, opens it, installs into it."""

from effort_finetune.host.host import Host, open_host
from effort_finetune.host.locate import locate

__all__ = ["Host", "locate", "open_host"]
