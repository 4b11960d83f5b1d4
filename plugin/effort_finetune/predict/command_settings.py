"""What the commands that judge files share: their flags, and what is refused before torch is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.core.torch_build import refuse_absent_device
from effort_finetune.data.finder_choice import FACES
from effort_finetune.weights.first_look import look_at


def add_judging_arguments(parser: argparse.ArgumentParser, *, batch: int) -> None:
    """Adds how files are read and scored.

    Args:
        parser: Of the command.
        batch: Default of ``--batch``.
    """
    parser.add_argument(
        "--faces",
        default="auto",
        choices=FACES,
        help="how faces are found; auto is the weights' own recipe (default: auto)",
    )
    parser.add_argument("--predictor", type=Path, help="a landmark model of dlib, of 81 or 68 points")
    parser.add_argument("--threshold", type=float, help="in place of the one that the weights carry")
    parser.add_argument("--frames", type=int, default=32, help="of a video at most (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=batch, help="crops scored at once (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--precision", default="auto", help="auto, float32, bf16 or fp16 (default: auto)")


def judging_settings(args: argparse.Namespace, *, onnx: bool = False) -> Settings:
    """Returns the settings of parsed arguments.

    Args:
        args: With ``weights`` and what :func:`add_judging_arguments` adds.
        onnx: Whether the weights may be an ONNX file.

    Raises:
        UserError: If a value is out of bounds, or weights, landmark model or device are not there.
    """
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise UserError("--threshold", got=args.threshold, expected="a number from 0 to 1")
    settings = Settings(
        device=args.device,
        precision=args.precision,
        test_batchSize=args.batch,
        frame_num={"train": 8, "test": args.frames},
    )
    refuse_absent_device(settings.device, settings.precision)
    look_at(args.weights, onnx=onnx)
    if args.predictor is not None and not args.predictor.is_file():
        raise UserError(
            "--predictor", got=f"{args.predictor}, which is no file", expected="a landmark model of dlib"
        )
    return settings
