"""``effort-finetune export FILE --to FORMAT --output PATH``: a checkpoint in another layout.

``effort-finetune export RUN_FOLDER`` writes the ``ckpt_best.pth`` of a run that did not come to its end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import refuse_unwritable
from effort_finetune.data.finder_choice import FACES
from effort_finetune.weights.first_look import look_at

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.weights.checkpoint import Checkpoint
    from effort_finetune.weights.deepfakebench_layout import Exported

NAME = "export"
HELP = "write a checkpoint in another layout"

FORMATS = {
    "deepfakebench": "a .pth that DeepfakeBench's own test.py loads",
    "effort-fork": "the same for the Effort authors' fork, whose files are three times as large",
    "merged": "a folder with a plain CLIPVisionModel, the residuals summed in, and the head",
    "adapter": "a .safetensors with residuals and head only; needs --base",
    "peft": "a folder with a LoRA adapter over plain CLIP, for PEFT; needs --base",
    "hub-folder": "a folder for a model hub: the .pth (with --base an adapter), a model card, the results",
    "onnx": "an .onnx file, image in, logits, probability and features out",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path, help="checkpoint in any known layout, an adapter, or a run folder")
    parser.add_argument(
        "--to",
        default="deepfakebench",
        choices=FORMATS,
        help="; ".join(f"{k}: {v}" for k, v in FORMATS.items()) + " (default: deepfakebench)",
    )
    parser.add_argument(
        "--output", type=Path, help="file or folder to write (default for a run folder: its ckpt_best.pth)"
    )
    parser.add_argument(
        "--base", help="adapter and peft: the weights the model was fine-tuned from (file, folder or hub id)"
    )
    parser.add_argument(
        "--results", type=Path, help="hub-folder: results of FILE (default: the results.json beside it)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="onnx: weights of 8 bits, written only where --parity agrees"
    )
    parser.add_argument(
        "--parity", nargs="+", default=[], metavar="PATH",
        help="--int8: pictures, videos or folders that both models judge; where folders name the class the "
        "AUC counts, too",
    )  # fmt: skip
    parser.add_argument(
        "--faces", default="auto", choices=FACES,
        help="--parity: how faces are found; auto is the weights' own recipe (default: auto)",
    )  # fmt: skip
    parser.add_argument("--name", help="hub-folder: the model's name (default: that of --output)")
    parser.add_argument("--license", help="hub-folder: the licence's identifier, e.g. cc-by-nc-4.0")
    parser.add_argument("--adapter_base", type=Path, help="base of FILE, when FILE is an adapter that moved")
    parser.add_argument(
        "--allow_base_mismatch", action="store_true", help="put an adapter on another base than its own"
    )
    parser.add_argument(
        "--settings",
        type=Path,
        help="settings.yaml of the run (default: the one beside FILE, if there is one)",
    )
    parser.add_argument(
        "--head_width", type=int, help="width of an attention head (default: the run's, as stated, or 64)"
    )
    parser.add_argument(
        "--hidden_act",
        choices=("quick_gelu", "gelu"),
        help="activation (default: the run's, as stated, or quick_gelu)",
    )
    parser.add_argument(
        "--allow_pickle", action="store_true", help="let files run code; only for files you trust"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Reads, converts, writes and names what was written."""
    look_at(args.file)
    if args.int8 != bool(args.parity) or (args.int8 and args.to != "onnx"):
        raise UserError(
            "--int8", got=f"--to {args.to}, {len(args.parity)} paths of --parity",
            expected="--to onnx --int8 --parity PATHS: rounded weights are written only where verdicts agree",
        )  # fmt: skip
    if args.output is None:
        return _finish_run(args)
    settings = _settings(args)
    measured = _check(args, settings)
    from effort_finetune.config import Settings
    from effort_finetune.weights.reader import read_checkpoint
    from effort_finetune.weights.statement import Statement

    known = settings or Settings()
    checkpoint = read_checkpoint(
        _measured(args.file) if args.to == "hub-folder" else args.file,
        allow_pickle=args.allow_pickle,
        head_width=args.head_width or known.head_width,
        hidden_act=args.hidden_act or known.hidden_act,
        base=args.adapter_base,
        allow_base_mismatch=args.allow_base_mismatch,
    )
    checkpoint.require_complete()
    if settings is not None:
        given = Statement(mean=settings.mean, std=settings.std, resolution=checkpoint.resolution)
        checkpoint.statement = checkpoint.statement.over(given)
    written = _export(args, checkpoint, settings, measured)
    for path in written.paths:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    for note in (*checkpoint.notes, *checkpoint.tower_notes, *written.notes):
        print(f"note: {note}")
    return 0


def _finish_run(args: argparse.Namespace) -> int:
    """Writes the selected weights of a run into its folder, as the run itself would have at its end."""
    from effort_finetune.core.locks import hold
    from effort_finetune.weights import run_state

    if args.to != "deepfakebench" or run_state.file_in(args.file) is None:
        raise UserError(
            "--output",
            got=f"none for {args.file}",
            expected="a file or folder to write; only a run folder has a default, its ckpt_best.pth",
        )
    with hold(args.file):
        path, epoch = run_state.finish(args.file)
    which = "the last ones: no epoch was selected" if epoch is None else f"of epoch {epoch}"
    print(f"{path} ({path.stat().st_size:,} bytes) holds the run's weights, {which}")
    return 0


def _export(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    settings: Settings | None,
    measured: dict[str, Any] | None,
) -> Exported:
    from effort_finetune.export import merged
    from effort_finetune.export import onnx as export_onnx
    from effort_finetune.export import peft as export_peft
    from effort_finetune.weights import deepfakebench_layout

    if args.to in ("deepfakebench", "effort-fork"):
        return deepfakebench_layout.export_deepfakebench(
            checkpoint, args.output, effort_fork=args.to == "effort-fork"
        )
    if args.to == "merged":
        return merged.export_merged(checkpoint, args.output)
    if args.int8:
        from effort_finetune.export.onnx_int8 import export_int8
        from effort_finetune.predict.inputs import find_files

        return export_int8(checkpoint, args.file, args.output, find_files(args.parity), faces=args.faces)
    if args.to == "onnx":
        return export_onnx.export_onnx(checkpoint, args.output)
    if measured is not None:
        return _hub_folder(args, checkpoint, settings, measured)
    base_name, base = _base(args, settings)
    if args.to == "peft":
        return export_peft.export_peft(
            checkpoint, args.output, base, base_name=base_name, tower=_tower_prefix(base_name)
        )
    return _adapter(args.output, checkpoint, settings, base, base_name)


def _adapter(
    path: Path, checkpoint: Checkpoint, settings: Settings | None, base: Checkpoint, base_name: str
) -> Exported:
    from effort_finetune.weights import adapter, deepfakebench_layout

    written = adapter.save_adapter(
        path,
        checkpoint.tensors,
        base,
        base_name=base_name,
        settings=settings.to_dict() if settings else None,
        settings_digest=settings.digest() if settings else None,
        vision_config=checkpoint.known_config,
        statement=checkpoint.statement,
    )
    return deepfakebench_layout.Exported((written,))


def _measured(file: Path) -> Path:
    """Returns the weights that a run's results are of."""
    from effort_finetune.weights.run_state import BEST_NAME

    best = file / BEST_NAME
    return best if best.is_file() else file


def _hub_folder(
    args: argparse.Namespace, checkpoint: Checkpoint, settings: Settings | None, measured: dict[str, Any]
) -> Exported:
    from effort_finetune.export.hub_folder import export_hub_folder, refuse_results_of_others
    from effort_finetune.weights.deepfakebench_layout import export_deepfakebench

    refuse_results_of_others(measured, _results_path(args), checkpoint.sha256)

    def write(path: Path) -> Exported:
        if args.base is None:
            return export_deepfakebench(checkpoint, path)
        name, base = _base(args, settings)
        return _adapter(path, checkpoint, settings, base, name)

    return export_hub_folder(
        args.output, measured, write,
        adapter=args.base is not None, name=args.name or args.output.name, license=args.license,
    )  # fmt: skip


def _settings(args: argparse.Namespace) -> Settings | None:
    from effort_finetune.config import load_yaml, settings_from_config

    folder = args.file if args.file.is_dir() else args.file.parent
    path = args.settings or folder / "settings.yaml"
    if args.settings is None and not path.is_file():
        return None
    return settings_from_config(load_yaml(path))


def _check(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any] | None:
    """Refuses what a format lacks before torch is imported; returns the results that go into a hub folder."""
    if args.to in ("adapter", "peft") and _base_name(args, settings) is None:
        raise UserError(
            f"export to {args.to}", got="no --base", expected="the weights the model was fine-tuned from"
        )
    refuse_unwritable(args.output.parent, what="folder of --output", flag="--output")
    if args.to != "hub-folder":
        return None
    from effort_finetune.evaluate import results

    return results.read(_results_path(args))


def _results_path(args: argparse.Namespace) -> Path:
    folder: Path = args.file if args.file.is_dir() else args.file.parent
    return args.results or folder


def _base_name(args: argparse.Namespace, settings: Settings | None) -> str | None:
    if args.base is None and settings is not None:
        return (args.to == "adapter" and settings.pretrained_weights) or settings.clip_path
    return args.base


def _base(args: argparse.Namespace, settings: Settings | None) -> tuple[str, Checkpoint]:
    """Reads the base named by --base, else by the run's settings."""
    from effort_finetune.model.backbone import locate_clip
    from effort_finetune.weights.reader import read_checkpoint

    name = _base_name(args, settings)
    assert name is not None  # checked before anything was read
    return name, read_checkpoint(locate_clip(name), allow_pickle=args.allow_pickle)


def _tower_prefix(base_name: str) -> str:
    """Returns the tower's prefix in the model that transformers loads from the base."""
    from effort_finetune.export.peft import vision_model_prefix
    from effort_finetune.model.backbone import locate_clip
    from effort_finetune.weights.vision_config import CONFIG, read_config

    path = locate_clip(base_name)
    return vision_model_prefix(read_config(path / CONFIG) if path.is_dir() else {})
