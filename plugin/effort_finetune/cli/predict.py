"""``effort-finetune predict``: pictures and videos to verdicts."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.cli.context import Context
from effort_finetune.cli.prepare_arguments import shard
from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import refuse_unwritable
from effort_finetune.core.launch import refuse_several
from effort_finetune.core.progress import bar
from effort_finetune.predict.command_settings import add_judging_arguments, judging_settings

if TYPE_CHECKING:
    from effort_finetune.predict.file_records import FileRecord

NAME = "predict"
HELP = (
    "Judge pictures and videos: faces are found and cut as the weights were trained, each file gets a "
    "probability of fake and a verdict (real, fake, unsure with its reasons)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the files, the weights and what is written."""
    parser.add_argument(
        "paths", nargs="+", help="files, folders, patterns; - reads a list of paths from standard input"
    )
    parser.add_argument(
        "--weights", type=Path, required=True,
        help="a fine-tuned or released checkpoint, or an .onnx file that `export` made of one",
    )  # fmt: skip
    parser.add_argument(
        "--runtime",
        choices=("auto", "torch", "onnx"),
        default="auto",
        help="what scores: torch, or ONNX Runtime on the processor for an .onnx file (default: by the file)",
    )
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write every record as a line of JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each file")
    parser.add_argument(
        "--stability", action="store_true", help="score each file again as platforms would deliver it"
    )
    parser.add_argument(
        "--heatmap", type=Path, metavar="FOLDER",
        help="write where the detector looked: of each face's most suspicious frame a PNG and its numbers",
    )  # fmt: skip
    parser.add_argument(
        "--evidence", type=Path, metavar="FOLDER",
        help="write what each verdict rests on: an HTML page that prints well, and its JSON",
    )  # fmt: skip
    parser.add_argument(
        "--labels", choices=("from-folders",), help="measure the verdicts: folders say real or fake"
    )
    parser.add_argument(
        "--shard", type=shard, default="1/1", metavar="I/N", help="the I-th of N shares of the files"
    )
    add_judging_arguments(parser, batch=32)


def run(args: argparse.Namespace, context: Context) -> int:
    """Judges the files; 0 when each has a record.

    Raises:
        UserError: If anything asked for is wrong; nothing has been read then.
    """
    refuse_several(NAME, "without torchrun; --shard I/N shares the files out")
    from effort_finetune.predict.inputs import find_files

    number, count = args.shard
    _check_runtime(args)
    settings = judging_settings(args, onnx=True)
    written = {"--heatmap": args.heatmap, "--evidence": args.evidence}
    written |= {flag: path and path.parent for flag, path in (("--jsonl", args.jsonl), ("--csv", args.csv))}
    for flag, folder in written.items():
        if folder is not None:
            refuse_unwritable(folder, what=f"folder of {flag}", flag=flag)
    files = find_files(args.paths, sys.stdin)[number - 1 :: count]

    os.environ.setdefault(
        "OPENCV_FFMPEG_LOGLEVEL", "-8"
    )  # a damaged file has its record; read by OpenCV later
    # torch, not needed for what is checked above
    from effort_finetune.data.class_words import ClassWords
    from effort_finetune.predict.file_metrics import LabelledFiles
    from effort_finetune.predict.file_outputs import FileOutputs
    from effort_finetune.predict.prediction import load_predictor
    from effort_finetune.predict.record_writer import RecordWriter

    predictor = load_predictor(
        args.weights, settings, faces=args.faces, predictor=args.predictor, threshold=args.threshold
    )
    outputs = FileOutputs(predictor, args.heatmap, args.evidence)
    for line in [*predictor.lines(), *outputs.lines()]:
        print(line, file=sys.stderr)
    words = ClassWords() if args.labels else None
    labelled = LabelledFiles(predictor.rule.threshold)
    verdicts = dict.fromkeys(("real", "fake", "unsure"), 0)
    with RecordWriter(args.jsonl, args.csv) as writer, bar(total=len(files), unit="file") as progress:
        for found, record in predictor.judged(files, stability=args.stability, labels=words):
            record, lines = outputs.write(found, record)
            for line in lines:
                print(f"{visible(record.file)}: evidence: {line}", file=sys.stderr)
            writer.write(record)
            labelled.add(record)
            verdicts[record.verdict] += 1
            progress.write(line_of(record), file=sys.stdout)
            progress.update()
    told = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    print(f"{counted(len(files), 'file')}: {told}", file=sys.stderr)
    if words is not None:
        print("\n".join(labelled.lines()))
    return 0


def _check_runtime(args: argparse.Namespace) -> None:
    is_onnx = args.weights.suffix == ".onnx"
    if args.runtime != "auto" and (args.runtime == "onnx") != is_onnx:
        step = f"--weights {args.weights.with_suffix('.onnx')}; `effort-finetune export --to onnx` makes it"
        raise UserError(
            f"--runtime {args.runtime}", got=f"--weights {args.weights}",
            expected="an .onnx file" if args.runtime == "onnx" else "weights of torch",
            next_step=step if args.runtime == "onnx" else "leave --runtime out",
        )  # fmt: skip
    for flag in ("heatmap", "evidence"):
        if is_onnx and getattr(args, flag):
            raise UserError(
                f"--{flag}", got=f"--weights {args.weights}", expected="weights of torch",
                next_step="give the checkpoint it was made of: maps need gradients, which ONNX has not",
            )  # fmt: skip


def line_of(record: FileRecord) -> str:
    """Returns one record in one line."""
    score = record.score if record.calibrated is None else record.calibrated
    parts = [f"{record.verdict:<6}", "     -" if score is None else f"{score:.4f}", visible(record.file)]
    reasons = f"({visible('; '.join(record.reasons), limit=300)})" if record.reasons else ""
    return "  ".join([*parts, reasons]).rstrip()
