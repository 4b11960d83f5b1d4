"""``effort-finetune prepare``: from videos and pictures to what DeepfakeBench reads."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import open_run
from effort_finetune.cli.prepare_arguments import WHOLE_WAY, add_arguments
from effort_finetune.config import Settings
from effort_finetune.core.counted import counted
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.escaping import visible
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.crop_dataset import crop_dataset, summary
from effort_finetune.data.crop_options import CropOptions, model_folder
from effort_finetune.data.crop_record import read_record
from effort_finetune.data.crop_sources import find_sources
from effort_finetune.data.finder_choice import WITHOUT, FinderChoice, choose_finder
from effort_finetune.data.folder import index_crops, label_names, pack_crops
from effort_finetune.data.index import SPLITS
from effort_finetune.host import Host

NAME = "prepare"
HELP = (
    "prepare a dataset of your own: `prepare FOLDER --name NAME` cuts faces out of the videos and pictures "
    "of a folder, divides them into train, val and test by person, writes the JSON index and packs the LMDB; "
    "`crop`, `index` and `lmdb` do one of these steps"
)

__all__ = ["HELP", "NAME", "add_arguments", "run"]


def run(args: argparse.Namespace, context: Context) -> int:
    """Runs one step, or all; 1 when more sources could not be read than ``max_missing_rate`` allows.

    Raises:
        UserError: What was asked for cannot be done.
        RunFailure: The disk is full, or a file cannot be read or written.
    """
    if Path(args.name).name != args.name or args.name in (".", "..") or "\\" in args.name:
        raise UserError("dataset name", got=repr(args.name), expected="a plain name, not a path")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a damaged file is a line of ours
    host, settings = open_run(args, context, mode="train")
    steps = [_crop, _index, _lmdb] if args.step == WHOLE_WAY else [_STEPS[args.step]]
    try:
        return max([step(args, host, settings) for step in steps])
    except RunFailure:
        raise
    except OSError as error:
        raise RunFailure(
            f"prepare stopped: {error}; what was finished is kept; next: make room or fix the rights, and "
            "run it again"
        ) from error


def _crop(args: argparse.Namespace, host: Host, settings: Settings) -> int:
    target = host.resolve(settings.rgb_dir) / args.name
    words = ClassWords(tuple(args.real_folders), tuple(args.fake_folders))
    found = find_sources(args.videos.absolute(), words, pictures=args.pictures, label=args.label)
    options = _options(args, host, target)
    for note in found.notes:
        print(note)
    shard = getattr(args, "shard", (1, 1))
    run = crop_dataset(found, target, options, workers=args.jobs, shard=shard)
    for report in run.reports:
        if report.error is not None:
            print(f"{visible(report.title)}: {report.error}", file=sys.stderr)
    print("\n".join(summary(run)))
    print(f"counts of every source: {target}/crops.json")
    if shard != (1, 1):
        print(f"when all {shard[1]} shares are done: effort-finetune prepare index {args.name}")
    elif args.step != WHOLE_WAY:
        print(f"next: effort-finetune prepare index {args.name}")
    if args.step == WHOLE_WAY and not any(report.crops for report in run.reports):
        raise UserError(
            f"no crops of {visible(args.videos)}",
            got=f"{counted(len(run.reports), 'source')}, none with a crop",
            expected="faces in some of them",
            next_step="--faces whole for pictures without faces, --faces cropped for face crops",
        )  # fmt: skip
    return _verdict(
        len(run.reports), sum(r.error is not None for r in run.reports), settings.max_missing_rate
    )


def _verdict(sources: int, unread: int, allowed: float) -> int:
    """The exit code: a few sources that cannot be read stop no ``prepare ... && finetune``.

    One may always be missing; of many the share that runs allow of their frames.
    """
    if not unread:
        return 0
    above = unread > max(1, allowed * sources)
    print(
        f"{'error' if above else 'warning'}: {unread} of {counted(sources, 'source')} could not be read, "
        f"{'above' if above else 'within'} what may be missing (one, or max_missing_rate {allowed:g}); "
        "the others are done",
        file=sys.stderr,
    )
    return int(above)


def _options(args: argparse.Namespace, host: Host, target: Path) -> CropOptions:
    """The options, and a line that says which finder does the work and under what licence."""
    faces = args.faces
    record = read_record(target)
    if faces == "auto" and args.predictor is None and record is not None and record.recipe is not None:
        faces = record.recipe.finder  # what is there goes on as it began
    count = None if args.stride else args.num_frames
    fixed = (count, args.stride, args.size, args.margin, args.which, args.fit)
    if faces in WITHOUT:
        print(f"faces: {faces}, none is looked for; pictures that are not square: --fit {args.fit}")
        return CropOptions(None, faces, *fixed)
    finder: FinderChoice = choose_finder(faces, predictor=args.predictor, folders=[model_folder(host.root)])
    why = finder.why if faces == args.faces else "as for the crops that are there"
    print(f"faces: {finder.name}, {why}; licence: {finder.make().licence}")
    return CropOptions(finder, None, *fixed)


def _index(args: argparse.Namespace, host: Host, settings: Settings) -> int:
    made = index_crops(
        host.resolve(settings.rgb_dir),
        host.resolve(settings.dataset_json_folder),
        args.name,
        ratios=dict(zip(SPLITS, args.ratios, strict=True)),
        seed=args.seed,
        identity=args.identity,
    )
    counts = Counter((video.split, video.label_name) for video in made.videos)
    labels = label_names(args.name)
    for split in SPLITS:
        print(f"{split:<6}" + ", ".join(f"{counts[split, group]} {label}" for label, group in labels.items()))
    print(made.people.line() if made.people else "splits: those of the folders train, val and test")
    print(f"crops: {made.recipe or 'made elsewhere, their recipe is not known'}")
    print(f"written: {made.path}")
    if args.step != WHOLE_WAY:
        print(f"next: effort-finetune prepare lmdb {args.name}")
    return 0


def _lmdb(args: argparse.Namespace, host: Host, settings: Settings) -> int:
    path, count = pack_crops(host.resolve(settings.rgb_dir), host.resolve(settings.lmdb_dir), args.name)
    print(f"{counted(count, 'entry', 'entries')} in {path}; next: effort-finetune check-data {args.name}")
    return 0


_STEPS = {"crop": _crop, "index": _index, "lmdb": _lmdb}
