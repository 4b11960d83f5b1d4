"""The only room that knows a host's file names: finds one, opens it, installs into it."""

from effort_finetune.host.host import Host, open_host
from effort_finetune.host.locate import enclosing_host, locate

__all__ = ["Host", "enclosing_host", "locate", "open_host"]
