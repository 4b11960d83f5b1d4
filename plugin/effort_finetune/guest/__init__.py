"""The entrance from a host's own scripts."""

from effort_finetune.guest.take_over import take_over

__all__ = ["take_over"]
