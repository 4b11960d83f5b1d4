"""Row about the bootstrap: seconds and what is done in them; the old way is no longer there to compare."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
from timing import interleaved, row

from effort_finetune.core.metrics import binary_metrics
from effort_finetune.evaluate.intervals import confidence_intervals
from effort_finetune.evaluate.resampling import resample_videos

Row = dict[str, Any]
FRAMES = 10  # of a video


def bootstrap(options: Namespace) -> Iterator[Row]:
    """All intervals of 20,000 videos of ten frames by 1,000 resamples; seconds, not a ratio."""
    videos, samples = (200, 20) if options.quick else (20_000, 1000)
    rng = np.random.default_rng(0)
    video_label = np.arange(videos) % 2
    video = np.repeat(np.arange(videos), FRAMES)
    label = video_label[video]
    score = 1.5 * label + rng.normal(size=videos)[video] + rng.normal(size=len(video))
    prob = 1 / (1 + np.exp(-score))

    def measured() -> Any:
        counts = resample_videos(video_label, samples=samples, seed=0)
        point = binary_metrics(label, prob)
        return confidence_intervals(point, label, prob, video, counts, threshold=0.5)

    repeats = min(options.repeats, 2)
    times = interleaved({"all_intervals": measured}, repeats=repeats, warmup=0, clock=options.clock)
    seconds = times["all_intervals"]["median_s"]
    yield row(
        f"seconds for the intervals of {len(video):,} frames of {videos:,} videos, {samples:,} resamples",
        seconds,
        target="<= 4 s",
        met=seconds <= 4,
        measured={**times, "resampled_weights": samples * videos, "sorts": 1},
        setup="every metric that has an interval, jackknife included; numpy, one thread",
    )
