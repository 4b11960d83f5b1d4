"""Registers the plugin's detector and trainer in this host; imported by ``detectors/__init__.py``."""

import importlib.util

# Other detectors often need an older environment, which has no plugin; they run there as they always did.
if importlib.util.find_spec("effort_finetune"):
    from effort_finetune.guest.registry import register_in
    from effort_finetune.host import enclosing_host, open_host

    register_in(__package__, open_host(enclosing_host(__file__)))
