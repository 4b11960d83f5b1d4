"""What all tests share."""

from __future__ import annotations

import os

# No test asks a hub: a CLIP that is not there is an error at once. The library reads this when imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

# A busy machine must not fail a property by the clock; in CI the examples are the same on every run.
settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
