"""``effort-finetune check-data``: is the data what the index says it is?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import add_settings_arguments, open_run, settings_flags
from effort_finetune.config.aliases import key_of_flag
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.check import DatasetReport

NAME = "check-data"
HELP = (
    "check datasets: every frame's place, counts per split and label, missing and unreadable frames, short "
    "videos, name collisions, overlap between splits, labels; exit code 1 when a run would fail"
)
SHOWN = 3
_CONFOUNDS = {
    "container": "classes told apart by the files alone",
    "sources": "classes told apart by the files that the crops were made of",
    "statistics": "classes told apart by sharpness, colour and noise (may be the forgery itself)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets (default: all that have an index)")
    parser.add_argument(
        "--decode", metavar="N", help="also decode N frames of each split, evenly spread, or 'all'"
    )
    parser.add_argument("--json", action="store_true", help="print the whole report, lists included, as JSON")
    add_settings_arguments(parser, command="check-data")


def run(args: argparse.Namespace, context: Context) -> int:
    """Checks and prints; 0 when no finding is an error, else 1."""
    host, settings = open_run(args, context, mode="test")
    from effort_finetune.data.dataset_name import folder_of
    from effort_finetune.data.index import available_datasets, find_index

    names = args.names or _flagged(args, settings) or available_datasets(host, settings)
    if not names:
        folder = host.resolve(settings.dataset_json_folder)
        raise UserError(
            "no dataset to check", got=f"no JSON in {folder}", next_step="effort-finetune prepare"
        )
    for name in names:
        if folder_of(host, settings, name) is None:
            find_index(host, settings, name)
    from effort_finetune.data.check import EVERY_FRAME, check_dataset  # torch, not needed until here

    decode = _decode(args.decode, EVERY_FRAME)
    reports = [check_dataset(host, settings, name, decode=decode) for name in names]
    ok = all(report.ok for report in reports)
    if args.json:
        document = {"ok": ok, "datasets": {report.name: report.to_dict() for report in reports}}
        print(json.dumps(document, indent=2))
    else:
        for report in reports:
            print("\n".join(_lines(report)))
    return 0 if ok else 1


def _flagged(args: argparse.Namespace, settings: Settings) -> list[str]:
    """The datasets that flags name, in the order of the flags."""
    keys = [key_of_flag(flag) for flag in settings_flags(args)]
    asked = [getattr(settings, key) or () for key in keys if key.endswith("_dataset")]
    return list(dict.fromkeys(name for names in asked for name in names))


def _decode(value: str | None, every: int) -> int:
    if value is None:
        return 0
    if value == "all":
        return every
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise UserError("--decode", got=repr(value), expected="a number of frames per split, or 'all'")


def _lines(report: DatasetReport) -> list[str]:
    lines = [f"{report.name}: {'ok' if report.ok else 'NOT ok'}", f"  index  {report.index}"]
    if report.source:
        lines.append("  {kind:<6} {location} (paths: {path_rule})".format(**report.source))
    rows = [
        (split, visible(label), count.videos, count.frames, count.missing if report.source else "?")
        for split, counts in report.splits.items()
        for label, count in counts.items()
    ]
    if rows:
        width = max(len(label) for _, label, *_ in rows)
        lines.append(f"  {'split':<6} {'label':<{width}} {'videos':>7} {'frames':>8} {'missing':>8}")
        lines += [f"  {s:<6} {name:<{width}} {v:>7} {f:>8} {m:>8}" for s, name, v, f, m in rows]
    lines += [f"  host's own listing, {split}: {verdict}" for split, verdict in report.host_listing.items()]
    if report.decoded:
        sizes = ", ".join(f"{count} of {size}" for size, count in report.crop_sizes.items())
        lines.append(f"  decoded {report.decoded} frames: {sizes or 'none readable'}")
    for what, score in report.confounds.items():
        told = (
            f"AUC {score['auc']:.3f} [{score['low']:.3f}, {score['high']:.3f}], most by "
            f"{score['strongest'][0].replace('_', ' ')}"
            if score["auc"] is not None
            else score["reason"]
        )
        lines.append(f"  {_CONFOUNDS[what]}: {told}")
    for finding in report.findings:
        where = f"{finding.split}: " if finding.split else ""
        lines.append(f"  {finding.level}: {where}{finding.message}; next: {finding.next_step}")
        lines += [f"      {item}" for item in finding.items[:SHOWN]]
        if len(finding.items) > SHOWN:
            lines.append(f"      ... {len(finding.items) - SHOWN} more (--json lists all)")
    return lines
