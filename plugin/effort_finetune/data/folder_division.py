"""The samples of a folder and their division into train, val and test, disjoint by person."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from effort_finetune.core.escaping import visible
from effort_finetune.data.folder_listing import FolderListing, Picture, list_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.data.folder_samples import Sample, Sampled, take_samples
from effort_finetune.data.look_cache import looks_of
from effort_finetune.data.perceptual_hash import distance, look, near_pairs
from effort_finetune.data.persons import Groups, PersonReport, by_pattern, own_name, tie, tie_clips
from effort_finetune.data.sampling import ends_and_middle, frame_order
from effort_finetune.data.splits import divide

_FOLDERS_TRIED = 16  # of siblings whose pictures may be frames or stills
_ALIKE = 0.7  # neighbours in a video differ less than this share of what pictures of two videos differ
_ALIKE_ALONE = 77  # bits, for one folder without siblings; different persons differ by about 120
_KEPT = 256  # folders of one process


@dataclass(frozen=True)
class FolderContent:
    """A folder as it was found.

    Attributes:
        listing: Its pictures.
        sampled: The samples they make.
        options: How it was read.
    """

    listing: FolderListing
    sampled: Sampled
    options: FolderOptions

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples, real ones first."""
        return self.sampled.samples

    @cached_property
    def sha256(self) -> str:
        """The hash of names and sizes of its pictures."""
        return self.listing.sha256()

    @cached_property
    def own_splits(self) -> frozenset[str]:
        """Splits that its own folders name."""
        return frozenset(sample.split for sample in self.samples if sample.split)

    def people(self) -> tuple[list[list[int]], PersonReport]:
        """Positions of samples that stay together, and who was found."""
        return self._people

    @cached_property
    def _people(self) -> tuple[list[list[int]], PersonReport]:
        return _people(self)

    def divided(self, options: FolderOptions, *, among: str | None = None) -> list[str | None]:
        """The split of each sample where the folder has none of its own.

        Args:
            options: Seed, shares and pattern.
            among: Divide the samples of this split of the folder's own into train and val alone; the
                others get None.
        """
        other = self if options == self.options else FolderContent(self.listing, self.sampled, options)
        groups, _ = other.people()
        ratios = options.ratios("train", "val", "test") if among is None else options.ratios("train", "val")
        inside = [place for place, sample in enumerate(self.samples) if among in (None, sample.split)]
        position = {place: number for number, place in enumerate(inside)}
        kept = [[position[place] for place in group if place in position] for group in groups]
        labels = [self.samples[place].label for place in inside]
        parts = divide(
            [group for group in kept if group], labels, ratios=ratios, seed=options.seed, bare_is_error=False
        )
        chosen: list[str | None] = [None] * len(self.samples)
        for place, part in zip(inside, parts, strict=True):
            chosen[place] = part
        return chosen


_read: OrderedDict[tuple[str, FolderOptions], FolderContent] = OrderedDict()


def read_folder(folder: Path, options: FolderOptions) -> FolderContent:
    """Lists a folder and takes its samples; what did not change since the last call is not done again.

    Raises:
        UserError: No pictures, or no folder that tells a class.
    """
    listing = list_folder(folder)
    state = hashlib.sha256(
        "".join(f"{p.path}\n{p.size}\n{p.mtime_ns}\n" for p in listing.pictures).encode()
    ).hexdigest()
    key = (f"{folder.resolve()}\n{state}", options)
    if key not in _read:
        sampled = take_samples(
            listing, options.words, kind=options.samples, alike=partial(_of_one_scene, folder)
        )
        _read[key] = FolderContent(listing, sampled, options)
        if len(_read) > _KEPT:
            _read.popitem(last=False)
    return _read[key]


def _of_one_scene(folder: Path, siblings: Sequence[Sequence[str]]) -> bool:
    """Tells whether numbered pictures of sibling folders are frames of videos: neighbours look alike.

    A few folders are looked at: two neighbours of each, against those of the other folders.
    """
    several = [sorted(paths, key=frame_order) for paths in siblings if len(paths) > 1]
    if not several:
        return True  # one picture a folder: its name is the folder's
    step = max(1, len(several) // _FOLDERS_TRIED)
    pairs = []
    for paths in several[::step][:_FOLDERS_TRIED]:
        middle = (len(paths) - 1) // 2
        seen = [_look_at(folder / path) for path in paths[middle : middle + 2]]
        if all(seen):
            pairs.append((seen[0] or b"", seen[1] or b""))
    if not pairs:
        return False
    within = statistics.median(distance(*pair) for pair in pairs)
    across = [distance(a[0], b[0]) for number, a in enumerate(pairs) for b in pairs[number + 1 :]]
    return within < (_ALIKE * statistics.median(across) if across else _ALIKE_ALONE)


def _look_at(path: Path) -> bytes | None:
    try:
        return look(path.read_bytes())
    except OSError:
        return None


def _people(content: FolderContent) -> tuple[list[list[int]], PersonReport]:
    samples, options = content.samples, content.options
    groups, joined = Groups(len(samples)), Counter[str]()
    clips = {place: own_name(sample.name) for place, sample in enumerate(samples) if not sample.still}
    rule = tie_clips(groups, clips, options.identity, joined)
    stills = {place: sample for place, sample in enumerate(samples) if sample.still}
    if options.identity is not None:
        found = {place: by_pattern(sample.name, options.identity) for place, sample in stills.items()}
        joined["name"] += tie(
            groups,
            ((p, place) for place, persons in found.items() for p in persons if p != stills[place].name),
        )
    _tie_stems(groups, stills, joined)
    _tie_looks(groups, content, joined)
    lists = groups.lists()
    return lists, PersonReport(len(lists), rule, dict(joined), max(map(len, lists), default=0))


def _tie_stems(groups: Groups, stills: Mapping[int, Sample], joined: Counter[str]) -> None:
    """A stem in both classes is a picture and its forgery."""
    stems: dict[str, list[int]] = defaultdict(list)
    for place, sample in stills.items():
        stems[sample.name].append(place)
    for places in stems.values():
        if len({stills[place].label for place in places}) == 2:
            joined["stem in both classes"] += groups.join(places)


def _tie_looks(groups: Groups, content: FolderContent, joined: Counter[str]) -> None:
    """Stills, and videos by their ends and middle, that hold or show the same picture."""
    shown = [(p, path) for p, sample in enumerate(content.samples) for path in ends_and_middle(sample.frames)]
    by_path: dict[str, Picture] = {picture.path: picture for picture in content.listing.pictures}
    folder = content.listing.folder
    pictures = [by_path[path] for _, path in shown]
    found = looks_of(folder, pictures, desc=f"looks of {visible(folder.name, limit=40)}")
    places = [place for place, _ in shown]
    joined["equal bytes"] += tie(groups, ((d, p) for (d, _), p in zip(found, places, strict=True) if d))
    for first, second in near_pairs([seen for _, seen in found]):
        joined["equal look"] += groups.join((places[first], places[second]))
