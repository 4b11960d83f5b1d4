"""What one split of a dataset shares with the others: a leak that a result has to mention."""

from __future__ import annotations

from effort_finetune.data.index import SPLITS, DatasetIndex, Video


def split_overlap(index: DatasetIndex, split: str) -> dict[str, dict[str, int]]:
    """Videos and frames of a split that another split of the same dataset lists too.

    UADFV as upstream's script writes it has all videos in all three splits; Celeb-DF has val equal to test.

    Returns:
        ``{other split: {'videos': n, 'frames': n}}``, only splits that share something. A video is shared
        when its group, compression and name agree; a frame when its path does.
    """
    videos, frames = _contents(index, split)
    shared = {}
    for other in SPLITS:
        if other == split:
            continue
        other_videos, other_frames = _contents(index, other)
        counts = {"videos": len(videos & other_videos), "frames": len(frames & other_frames)}
        if any(counts.values()):
            shared[other] = counts
    return shared


def _contents(index: DatasetIndex, split: str) -> tuple[set[str], set[str]]:
    videos = [item for item in index.walk(split) if isinstance(item, Video) and item.frames]
    return {video.id for video in videos}, {path for video in videos for path in video.frames}
