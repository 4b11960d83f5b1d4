"""Registers the plugin's detector and trainer in this host; imported by ``detectors/__init__.py``."""

from pathlib import Path

from effort_finetune.host import open_host

open_host(Path(__file__).resolve().parents[2]).register_plugin()
