"""Checks a dataset from its index down to its pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.progress import bar
from effort_finetune.data.confounds import container_score
from effort_finetune.data.dataset_name import folder_of, label_of
from effort_finetune.data.decode import decode
from effort_finetune.data.findings import Finding, index_findings
from effort_finetune.data.folder_check import confound_findings, folder_findings
from effort_finetune.data.host_listing import listing_verdict
from effort_finetune.data.index import SPLITS, DatasetIndex, Video, find_index, load_index, with_own_labels
from effort_finetune.data.perceptual_hash import look, near_pairs
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.sampling import ends_and_middle
from effort_finetune.data.source_container import source_findings, source_score
from effort_finetune.data.sources import FileSource, FrameSource, open_source

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

CHUNK = 2000
EVERY_FRAME = -1


@dataclass
class LabelCount:
    """Contents of one label in one split."""

    videos: int = 0
    frames: int = 0
    missing: int = 0


@dataclass
class DatasetReport:
    """Everything found out about one dataset.

    Attributes:
        name: Dataset.
        index: Its JSON file.
        source: ``kind``, ``location`` and ``path_rule`` of its frames; None where they were not found.
        splits: ``{split: {label: LabelCount}}``.
        host_listing: By split, whether the host's own dataset class lists the same rows.
        decoded: Frames that were decoded, for ``--decode``.
        crop_sizes: ``{'256x256': frames}`` of the decoded ones.
        findings: What is to be said, errors first.
        confounds: How well files alone (``container``) and pixel statistics tell the classes apart.
    """

    name: str
    index: str
    source: dict[str, str] | None = None
    splits: dict[str, dict[str, LabelCount]] = field(default_factory=dict)
    host_listing: dict[str, str] = field(default_factory=dict)
    decoded: int = 0
    crop_sizes: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    confounds: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """No finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {"ok": self.ok, **asdict(self)}


def check_dataset(host: Host, settings: Settings, name: str, *, decode: int = 0) -> DatasetReport:
    """Checks one dataset's index, LMDB or files, and optionally its images.

    Args:
        host: Host whose folders are meant.
        settings: Resolved settings.
        name: Dataset.
        decode: Frames of each split to read and decode, spread evenly; -1 for all.

    Raises:
        UserError: There is no index of this name. Everything else is a finding.
    """
    folder = folder_of(host, settings, name)
    if folder is not None:
        return _check_folder(folder, settings, name, decode)
    report = DatasetReport(name, str(find_index(host, settings, name)))
    try:
        index = load_index(host, settings, name)
    except UserError as error:
        report.findings.append(_from_error("index", error))
        return report
    settings = with_own_labels(settings, index)
    videos = {split: [v for v in index.walk(split) if isinstance(v, Video)] for split in SPLITS}
    report.findings += index_findings(index, videos, settings)
    _count(report, videos)
    frames = {split: list(dict.fromkeys(p for v in videos[split] for p in v.frames)) for split in SPLITS}
    try:
        listed = [path for split in SPLITS for path in frames[split]]
        source = open_source(host, settings, name, listed) if listed else None
    except UserError as error:
        report.findings.append(_from_error("source", error))
        source = None
    if source is not None:
        report.source = {"kind": source.kind, "location": source.location, "path_rule": source.rule}
        for split in SPLITS:
            _check_frames(report, index, source, split, videos[split], frames[split], settings, decode)
    if report.ok:
        for split in (split for split in SPLITS if frames[split]):
            asked = settings.frame_num.test if split == "test" else settings.frame_num.train
            verdict = listing_verdict(host, settings, index, split=split, asked=asked)
            report.host_listing[split] = verdict
    _check_sources(report, index, videos, settings)
    if source is not None:
        _check_container(report, source, videos, settings)
        report.findings += _near_duplicates(source, videos, index.name)
    _sort(report)
    return report


def _near_duplicates(
    source: FrameSource, videos: Mapping[str, Sequence[Video]], name: str
) -> Iterator[Finding]:
    """The same pictures under other videos' names in two splits: first, middle and last frame of each."""
    shown: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        for video in videos[split]:
            for path in ends_and_middle(video.frames):
                shown.setdefault(path, (split, video.id))  # the same path in two splits is said elsewhere
    paths = sorted(shown)
    looks: list[bytes | None] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for chunk in _chunks(paths, f"{name} looks"):
            looks += threads.map(lambda path: look(source.read(path) or b""), chunk)
    pairs: dict[tuple[str, str], set[str]] = {}
    for places in near_pairs(looks):
        (one, first), (other, second) = sorted(
            (shown[paths[place]] for place in places), key=lambda found: SPLITS.index(found[0])
        )
        if one != other:
            pairs.setdefault((one, other), set()).add(f"{visible(second)} = {visible(first)}")
    for (one, other), items in pairs.items():
        yield Finding(
            "error", "near_duplicate", other, len(items),
            f"{counted(len(items), f'video of {other} shows', f'videos of {other} show')} "
            f"pictures of {one} under another name: results on it do not measure generalisation",
            "take them out of one of the two splits",
            sorted(items),
        )  # fmt: skip


def _check_container(
    report: DatasetReport,
    source: FrameSource,
    videos: Mapping[str, Sequence[Video]],
    settings: Settings,
) -> None:
    """What else tells the classes, over the videos of all splits, each once."""
    every = {video.id: video for split in SPLITS for video in videos[split]}
    known = settings.label_dict
    rows = [(path, v) for v in every.values() if v.label_name in known for path in v.frames]
    labels = [int(known[video.label_name] > 0) for _, video in rows]
    score = container_score(
        lambda place: source.read(rows[place][0]), labels, [v.id for _, v in rows], seed=settings.manualSeed
    )
    report.findings += confound_findings(score)
    report.confounds["container"] = score.to_dict()


def _check_sources(
    report: DatasetReport, index: DatasetIndex, videos: Mapping[str, Sequence[Video]], settings: Settings
) -> None:
    """What the files tell that the crops were made of, over the videos of all splits."""
    known = settings.label_dict
    every = {v.id: v.label_name for split in SPLITS for v in videos[split] if v.frames}
    labels = {video: int(known[label] > 0) for video, label in every.items() if label in known}
    score = source_score(index, labels, seed=settings.manualSeed)
    if score is not None:
        report.findings += source_findings(score)
        report.confounds["sources"] = score.to_dict()


def _check_folder(folder: Path, settings: Settings, name: str, decode: int) -> DatasetReport:
    report = DatasetReport(label_of(settings, name), visible(folder, limit=None))
    content, report.findings, report.confounds = folder_findings(folder, settings)
    if content is not None:
        source = FileSource(os.path.realpath(folder), "as_listed")
        report.source = {"kind": source.kind, "location": source.location, "path_rule": source.rule}
        for sample in content.samples:
            counts = report.splits.setdefault(sample.split or "all", {})
            count = counts.setdefault("/".join(filter(None, (sample.label, sample.group))), LabelCount())
            count.videos += 1
            count.frames += len(sample.frames)
        for split in report.splits if decode else ():
            frames = [p for s in content.samples if (s.split or "all") == split for p in s.frames]
            _decode_some(report, source, split, frames, settings, decode)
    _sort(report)
    return report


def _sort(report: DatasetReport) -> None:
    order = {"error": 0, "warning": 1, "note": 2}
    report.findings.sort(key=lambda finding: order[finding.level])


def _from_error(kind: str, error: UserError) -> Finding:
    got = f" ({error.got})" if error.got is not None else ""
    return Finding("error", kind, None, 1, f"{error.what}{got}", error.next_step or "")


def _count(report: DatasetReport, videos: dict[str, list[Video]]) -> None:
    for split in SPLITS:
        counts = report.splits.setdefault(split, {})
        for video in videos[split]:
            count = counts.setdefault(video.label_name, LabelCount())
            count.videos += bool(video.frames)
            count.frames += len(video.frames)


def _check_frames(
    report: DatasetReport,
    index: DatasetIndex,
    source: FrameSource,
    split: str,
    videos: Sequence[Video],
    frames: Sequence[str],
    settings: Settings,
    decode: int,
) -> None:
    missing = set(_missing(source, frames, f"{index.name} {split}"))
    for video in videos:
        report.splits[split][video.label_name].missing += sum(path in missing for path in video.frames)
    if missing:
        report.findings.append(
            _frames_finding("missing_frames", split, sorted(missing), len(frames), "are missing", settings)
        )
    if decode:
        readable = [path for path in frames if path not in missing]
        _decode_some(report, source, split, readable, settings, decode)


def _decode_some(
    report: DatasetReport,
    source: FrameSource,
    split: str,
    readable: Sequence[str],
    settings: Settings,
    decode: int,
) -> None:
    if readable:
        if decode != EVERY_FRAME and len(readable) > decode:
            readable = [readable[i * len(readable) // decode] for i in range(decode)]
        bad, sizes = _decode_all(source, readable, f"{report.name} {split} decoding")
        report.decoded += len(readable)
        report.crop_sizes = dict(Counter(report.crop_sizes) + sizes)
        if bad:
            report.findings.append(
                _frames_finding("unreadable_frames", split, bad, len(readable), "cannot be decoded", settings)
            )


def _frames_finding(
    kind: str, split: str, paths: list[str], total: int, words: str, settings: Settings
) -> Finding:
    rate = len(paths) / total
    above = rate > settings.max_missing_rate
    limit = f"{'above' if above else 'within'} max_missing_rate {settings.max_missing_rate:g}"
    message = f"{len(paths)} of {total} frames ({100 * rate:.2g} %) {words}, {limit}"
    step = "restore them, or build LMDB and index again from the same crops"
    return Finding("error" if above else "warning", kind, split, len(paths), message, step, paths)


def _chunks(paths: Sequence[str], desc: str) -> Iterator[Sequence[str]]:
    with bar(total=len(paths), desc=desc, unit="frame") as progress:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            yield chunk
            progress.update(len(chunk))


def _missing(source: FrameSource, paths: Sequence[str], desc: str) -> Iterator[str]:
    for chunk in _chunks(paths, desc):
        present = source.present(chunk)
        yield from (path for path, there in zip(chunk, present, strict=True) if not there)


def _decode_all(source: FrameSource, paths: Sequence[str], desc: str) -> tuple[list[str], Counter[str]]:
    """Unreadable paths, and how many frames have which size."""
    bad: list[str] = []
    sizes: Counter[str] = Counter()

    def size(path: str) -> str | None:
        try:
            image = decode(source.read(path) or b"")
        except Unreadable:
            return None
        return f"{image.shape[1]}x{image.shape[0]}"

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # decoding releases the interpreter
        for chunk in _chunks(paths, desc):
            for path, found in zip(chunk, threads.map(size, chunk), strict=True):
                if found is None:
                    bad.append(path)
                else:
                    sizes[found] += 1
    return bad, sizes
