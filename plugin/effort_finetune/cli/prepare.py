"""``effort-finetune prepare``: from videos to what DeepfakeBench reads, in three steps."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import open_run
from effort_finetune.config import Settings
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data.crop_dataset import CropOptions, crop_dataset, summary
from effort_finetune.data.folder import index_crops, label_names, pack_crops
from effort_finetune.data.index import SPLITS
from effort_finetune.host import Host

NAME = "prepare"
HELP = (
    "prepare a dataset of your own: `crop` cuts faces out of the videos in real/ and fake/, `index` divides "
    "the videos into train, val and test by person and writes the JSON, `lmdb` packs them"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the three steps and their arguments."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    crop = steps.add_parser("crop", help="cut faces out of videos into rgb_dir")
    _common(crop, "rgb_dir")
    crop.add_argument("--videos", type=Path, required=True, help="folder with real/ and fake/")
    crop.add_argument(
        "--faces",
        choices=["dlib", "cropped"],
        default="dlib",
        help="find and align faces with dlib (extra 'faces'), or take frames that are crops already",
    )
    crop.add_argument("--predictor", type=Path, help="shape_predictor_81_face_landmarks.dat, for dlib")
    amount = crop.add_mutually_exclusive_group()
    amount.add_argument("--num_frames", type=_positive, default=32, help="frames per video, evenly spaced")
    amount.add_argument("--stride", type=_positive, help="or every n-th frame")
    crop.add_argument("--size", type=_positive, default=256, help="side of a crop in pixels")
    crop.add_argument("--margin", type=float, default=1.3, help="side of a crop over that of the template")
    crop.add_argument("--jobs", type=_positive, default=1, help="processes")

    index = steps.add_parser("index", help="write the JSON index of the crops in rgb_dir")
    _common(index, "rgb_dir", "dataset_json_folder")
    index.add_argument(
        "--ratios", type=float, nargs=3, default=[0.7, 0.15, 0.15], metavar=("TRAIN", "VAL", "TEST")
    )
    index.add_argument(
        "--identity", help=r"regular expression of a person in a video's name, such as '(\d+)' for 000_003"
    )
    index.add_argument("--seed", type=int, default=1024, help="seed of the division")

    lmdb = steps.add_parser("lmdb", help="pack the crops in rgb_dir into lmdb_dir")
    _common(lmdb, "rgb_dir", "lmdb_dir")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _common(parser: argparse.ArgumentParser, *folders: str) -> None:
    parser.add_argument("name", metavar="NAME", help="dataset")
    parser.add_argument("--host", type=Path, help="DeepfakeBench checkout (default: found by itself)")
    parser.add_argument("--detector_config", type=Path, help="detector YAML with the folders")
    for folder in folders:
        help_text = f"{folder} in place of the configured one"
        parser.add_argument(
            f"--{folder}",
            dest=f"setting:{folder}",
            nargs=1,
            metavar="FOLDER",
            default=argparse.SUPPRESS,
            help=help_text,
        )


def run(args: argparse.Namespace, context: Context) -> int:
    """Runs one step; 1 when it made nothing of a video it should have cropped.

    Raises:
        UserError: What was asked for cannot be done.
        RunFailure: The disk is full, or a file cannot be read or written.
    """
    if Path(args.name).name != args.name or args.name in (".", ".."):
        raise UserError("dataset name", got=repr(args.name), expected="a plain name, not a path")
    host, settings = open_run(args, context, mode="train")
    step = {"crop": _crop, "index": _index, "lmdb": _lmdb}[args.step]
    try:
        return step(args, host, settings)
    except OSError as error:
        raise RunFailure(
            f"prepare {args.step} stopped: {error}; what was finished is kept; next: make room or mend the "
            "rights, and run it again"
        ) from error


def _crop(args: argparse.Namespace, host: Host, settings: Settings) -> int:
    if args.margin < 1:
        raise UserError("--margin", got=args.margin, expected="1 or more")
    options = CropOptions(
        args.faces,
        args.predictor,
        None if args.stride else args.num_frames,
        args.stride,
        args.size,
        args.margin,
    )
    target = host.resolve(settings.rgb_dir) / args.name
    reports = crop_dataset(args.videos, target, options, workers=args.jobs)
    for report in reports:
        if report.error or not report.crops:
            print(f"{report.name}: {report.error or 'no face in any frame'}")
    print(summary(reports))
    print(
        f"{target}/crops.json has the counts of every video; next: effort-finetune prepare index {args.name}"
    )
    return 0 if all(report.error is None for report in reports) else 1


def _index(args: argparse.Namespace, host: Host, settings: Settings) -> int:
    path, videos = index_crops(
        host.resolve(settings.rgb_dir),
        host.resolve(settings.dataset_json_folder),
        args.name,
        ratios=dict(zip(SPLITS, args.ratios, strict=True)),
        seed=args.seed,
        identity=args.identity,
    )
    counts = Counter((video.split, video.label_name) for video in videos)
    labels = label_names(args.name)
    for split in SPLITS:
        print(f"{split:<6}" + ", ".join(f"{counts[split, group]} {label}" for label, group in labels.items()))
    print(f"written: {path}")
    absent = {
        group: int(label == "fake") for label, group in labels.items() if group not in settings.label_dict
    }
    if absent:
        lines = ", ".join(f"{group}: {value}" for group, value in absent.items())
        print(f"add to label_dict in the YAML: {lines}")
    print(f"next: effort-finetune prepare lmdb {args.name}")
    return 0


def _lmdb(args: argparse.Namespace, host: Host, settings: Settings) -> int:
    path, count = pack_crops(host.resolve(settings.rgb_dir), host.resolve(settings.lmdb_dir), args.name)
    print(f"{count} entries in {path}; next: effort-finetune check-data {args.name}")
    return 0
