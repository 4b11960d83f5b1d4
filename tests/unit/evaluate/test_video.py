"""Grouping frames into videos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate.video import video_scores

from .conftest import Row, make_scores


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-20, 20), st.booleans()), max_size=40))
def test_a_video_is_the_mean_of_its_scored_frames(frames):
    rows = [Row(video=f"D/{v % 2}/{v}", label=v % 2) for v, _, _ in frames]
    used = [i for i, (_, _, readable) in enumerate(frames) if readable]
    scores = make_scores(
        [frames[i][1] for i in used], [rows[i].label for i in used], used, set(range(len(frames))) - set(used)
    )
    videos = video_scores(rows, scores)

    naive: dict[str, list[float]] = {}
    for position, i in enumerate(used):
        naive.setdefault(rows[i].video, []).append(scores.prob[position])
    assert videos.video == tuple(naive)
    assert videos.prob == pytest.approx([np.mean(p) for p in naive.values()])
    assert videos.frames.tolist() == [len(p) for p in naive.values()]
    assert videos.label.tolist() == [int(name.split("/")[1]) for name in naive]
    assert [videos.video[v] for v in videos.video_of_frame] == [rows[i].video for i in used]


def test_equal_folder_names_stay_apart():
    # FF++: 000_003 exists in every manipulation, and a custom set may reuse names over the labels.
    rows = [
        Row("FF/FF-DF/c23/000_003", 1, "x\\Deepfakes\\000_003\\0.png"),
        Row("FF/FF-NT/c23/000_003", 1, "x\\NeuralTextures\\000_003\\0.png"),
        Row("FF/FF-real/c23/000_003", 0, "x\\real\\000_003\\0.png"),
    ]
    videos = video_scores(rows, make_scores([1, 2, -1], [1, 1, 0]))
    assert len(videos.video) == 3
    assert videos.label.tolist() == [1, 1, 0]


def test_a_video_with_two_labels_is_refused():
    rows = [Row("D/a/v", 0), Row("D/a/v", 1)]
    with pytest.raises(UserError, match="1 fake and 1 real"):
        video_scores(rows, make_scores([0, 0], [0, 1]))
