"""Arguments of ``effort-finetune prepare``: the whole way from a folder, or one of its three steps."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effort_finetune.cli.options import SettingFlag, add_host_arguments
from effort_finetune.data.crop_dataset import Shard
from effort_finetune.data.faces import WHICH
from effort_finetune.data.finder_choice import FACES

WHOLE_WAY = "all"
MOST_JOBS = 256


class _Steps(argparse._SubParsersAction):
    """A first word that is no step is the folder of the whole way: ``prepare FOLDER --name NAME``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = [str(word) for word in values or ()]
        if words and words[0] not in self._name_parser_map:
            words = [WHOLE_WAY, *words]
        super().__call__(parser, namespace, words, option_string)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the steps and their arguments."""
    parser.register("action", "parsers", _Steps)
    steps = parser.add_subparsers(dest="step", required=True, metavar="FOLDER | crop | index | lmdb")
    steps.choices = None  # type: ignore[assignment]  # any other word is a folder

    whole = steps.add_parser(WHOLE_WAY, help="FOLDER --name NAME: all three steps", allow_abbrev=False)
    whole.prog = parser.prog
    whole.add_argument("videos", type=Path, metavar="FOLDER", help="folder with videos and pictures")
    whole.add_argument("--name", required=True, help="name of the dataset")
    _host(whole, "rgb_dir", "dataset_json_folder", "lmdb_dir")
    _crop(whole)
    _index(whole)

    crop = steps.add_parser("crop", help="cut faces out of videos and pictures into rgb_dir")
    _name(crop)
    _host(crop, "rgb_dir")
    crop.add_argument("--videos", type=Path, required=True, help="folder with videos and pictures")
    _crop(crop)
    crop.add_argument(
        "--shard", type=shard, default=(1, 1), metavar="I/N", help="crop the I-th of N shares of the sources"
    )

    index = steps.add_parser("index", help="write the JSON index of the crops in rgb_dir")
    _name(index)
    _host(index, "rgb_dir", "dataset_json_folder")
    _index(index)

    lmdb = steps.add_parser("lmdb", help="pack the crops in rgb_dir into lmdb_dir")
    _name(lmdb)
    _host(lmdb, "rgb_dir", "lmdb_dir")


def _crop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--faces",
        choices=FACES,
        default="auto",
        help="what finds the faces: dlib with the 81- or 68-point model, or mtcnn (auto: the first of them "
        "that is there); cropped: the pictures are face crops; whole: no face is looked for",
    )
    parser.add_argument("--predictor", type=Path, help="a landmark model of dlib, of 81 or 68 points")
    parser.add_argument(
        "--which",
        choices=WHICH,
        default="largest",
        help="faces of a frame: the largest, all, or single ones only",
    )
    parser.add_argument(
        "--fit",
        choices=["crop", "pad", "squash"],
        default="crop",
        help="with cropped or whole: how a picture that is not square becomes one (default: its middle)",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--num_frames", type=_positive, default=32, help="frames per video, evenly spaced")
    amount.add_argument("--stride", type=_positive, help="or every n-th frame")
    parser.add_argument("--size", type=_side, default=256, help="side of a crop in pixels")
    parser.add_argument(
        "--margin", type=_margin, default=1.3, help="side of a crop over that of the template"
    )
    parser.add_argument(
        "--pictures",
        choices=["auto", "videos", "stills"],
        default="auto",
        help="whether numbered pictures of one folder are the frames of a video",
    )
    parser.add_argument(
        "--class", dest="label", choices=["real", "fake"], help="of all, where no folder says it"
    )
    parser.add_argument(
        "--real_folders",
        nargs="+",
        default=[],
        metavar="NAME",
        help="folders of real ones, by name or pattern",
    )
    parser.add_argument("--fake_folders", nargs="+", default=[], metavar="NAME", help="folders of fakes")
    parser.add_argument("--jobs", type=_jobs, default=_cores(), help="processes (default: one per core)")


def _index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ratios", type=float, nargs=3, default=[0.7, 0.15, 0.15], metavar=("TRAIN", "VAL", "TEST")
    )
    parser.add_argument(
        "--identity", help=r"regular expression of a person in a video's name, such as '(\d+)' for 000_003"
    )
    parser.add_argument("--seed", type=int, default=1024, help="seed of the division")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="dataset")


def _host(parser: argparse.ArgumentParser, *folders: str) -> None:
    add_host_arguments(parser)
    for folder in folders:
        parser.add_argument(
            f"--{folder}",
            action=SettingFlag,
            dest=f"setting:{folder}",
            nargs=1,
            metavar="FOLDER",
            default=argparse.SUPPRESS,
            help=f"{folder} in place of the configured one",
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _positive(text: str) -> int:
    return _between(text, 1, 10**9)


def _side(text: str) -> int:
    return _between(text, 16, 4096)


def _jobs(text: str) -> int:
    return _between(text, 1, MOST_JOBS)


def _between(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
    return int(text)


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 10:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 10, got {text!r}")
    return value


def shard(text: str) -> Shard:
    """Reads ``I/N``, the share of the work that this process does."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 100_000):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/8, got {text!r}")
    return int(number), int(count)
