"""Interleaved repeats: what is compared is measured in turns, so that a busy moment hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def interleaved(
    variants: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    warmup: int = 1,
    clock: str = "wall",
    device: str = "cpu",
) -> dict[str, dict[str, Any]]:
    """Times each variant ``repeats`` times in turns, after ``warmup`` untimed turns.

    Args:
        variants: Name to what is timed.
        repeats: Timed turns.
        warmup: Untimed turns.
        clock: ``wall``, or ``cpu``: processor seconds of this process, which other work on a
            shared machine changes less. Meaningful with one thread only: waiting threads spin.
        device: Where the variants compute; a turn ends when the device has finished it.

    Returns:
        Name to ``median_s``, ``min_s``, ``max_s`` and every ``samples_s``, in seconds of the clock.
    """
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + repeats):
        for name, variant in variants.items():
            start = now()
            variant()
            finish(device)
            elapsed = now() - start
            if turn >= warmup:
                samples[name].append(elapsed)
    return {name: summary(values) for name, values in samples.items()}


def finish(device: str) -> None:
    """Waits for what was queued on an accelerator."""
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "median_s": statistics.median(values),
        "min_s": min(values),
        "max_s": max(values),
        "samples_s": values,
    }


def row(
    what: str,
    ratio: float,
    *,
    target: str,
    met: bool,
    measured: Mapping[str, Any],
    setup: str,
) -> dict[str, Any]:
    """One line of the result: a ratio, its target, and everything it was computed from."""
    return {
        "what": what,
        "ratio": round(ratio, 4),
        "target": target,
        "met": met,
        "setup": setup,
        "measured": dict(measured),
    }


def skipped(what: str, reason: str) -> dict[str, Any]:
    """A line for what this machine or its packages cannot measure."""
    return {"what": what, "ratio": None, "target": None, "met": None, "skipped": reason}
