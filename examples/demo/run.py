"""The whole job on generated data, by the commands a user would type.

make demo                         or, in an environment that has the package:
python -m examples.demo.run [--output_dir demo_output] [--seed 1024] [--rebuild]
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from effort_finetune.cli.main import run_command
from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.core.exit_code import exit_code
from effort_finetune.core.files import ensure_writable_dir

HELP = (
    "Generate three small datasets, then: evaluate the shipped checkpoint, fine-tune it on the forgery it "
    "has not seen, evaluate again, compare, report, judge three files."
)
WEIGHTS = "training/pretrained/demo_effort_familyA.pth"
DATASETS = ("DemoA", "DemoB", "DemoC")


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs the steps; a user error is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=HELP, allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_output"), help="default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=1024, help="seed of the fine-tuning (default: %(default)s)"
    )
    parser.add_argument("--rebuild", action="store_true", help="generate the data anew")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Runs the steps; each prints the command it is.

    Raises:
        UserError: If the package has no embedded host (a wheel) or the folder cannot be written.
    """
    start = time.perf_counter()
    root = resources.embedded_host()
    if root is None:
        raise UserError(
            "the demo needs the repository",
            got="an installation without the embedded host",
            next_step="clone the repository and run `make demo` in it",
        )
    out = ensure_writable_dir(args.output_dir)
    build_missing(root, rebuild=args.rebuild)
    config = str(resources.root() / "configs" / "presets" / "demo.yaml")
    common = ["--host", str(root), "--detector_config", config]
    before, tuned, after = out / "before", out / "finetune", out / "after"
    _step("How good is the released checkpoint?", _evaluate(common, root / WEIGHTS, before))
    options = [
        "--manualSeed",
        str(args.seed),
        "--output_dir",
        str(tuned),
        "--save_to",
        str(out / "effort_demob.pth"),
    ]
    start_from = ["--train_dataset", "DemoB", "DemoA", "--pretrained_weights", str(root / WEIGHTS)]
    _step(
        "Fine-tune it on DemoB, a forgery it has not seen, with DemoA replayed so that it stays known",
        ["finetune", *common, *start_from, *options],
    )
    _step("Was anything gained, was anything forgotten?", _evaluate(common, tuned / "ckpt_best.pth", after))
    results = [str(before / "results.json"), str(after / "results.json")]
    _step("Before and after", ["compare", *results])
    _step("The same as a page", ["report", *results, "--output", str(out / "report.html")])
    asked = _ask(root, common, out)
    print(f"\nDone in {time.perf_counter() - start:.0f} s. Open {out / 'report.html'} and {asked}.\n")
    print(f"The same in a browser: effort-finetune serve --weights {_calibrated(out)} --faces cropped\n")
    print(_YOUR_DATA)
    return 0


_YOUR_DATA = """With your own data:

  effort-finetune install /path/to/DeepfakeBench
  cd /path/to/DeepfakeBench
  effort-finetune doctor
  python training/finetune.py \\
      --detector_config training/config/detector/effort_finetune.yaml \\
      --train_dataset UADFV --test_dataset UADFV \\
      --pretrained_weights /path/to/effort_clip_L14_trainOn_FaceForensic.pth
  python training/evaluate_finetune.py \\
      --detector_config training/config/detector/effort_finetune.yaml \\
      --weights finetuned/effort_uadfv.pth \\
      --test_dataset UADFV Celeb-DF-v2 --output_dir evaluation_results"""


def _calibrated(out: Path) -> Path:
    return out / "effort_demob_calibrated.pth"


def _ask(root: Path, common: list[str], out: Path) -> Path:
    """Asks about three files, and returns the folder with the evidence."""
    from examples.demo.files import write_files

    weights, asked = _calibrated(out), out / "evidence"
    weights.unlink(missing_ok=True)  # of an earlier demo; calibrate overwrites nothing
    fitted = ["--weights", str(out / "effort_demob.pth"), "--output", str(weights)]
    val = ["--val_dataset", "DemoA", "DemoB"]
    _step(
        "What is its probability worth? Calibrate it on validation videos",
        ["calibrate", *common, *val, *fitted],
    )
    files = write_files(
        root / "datasets" / "lmdb", root / "preprocessing" / "dataset_json", "DemoB", out / "files"
    )
    judge = ["--weights", str(weights), "--heatmap", str(asked), "--evidence", str(asked), "--faces"]
    _step(
        "Are these two files fake, and where?",
        ["predict", str(files["forged"]), str(files["real"]), *judge, "cropped"],
    )
    _step("And a picture without a face?", ["predict", str(files["no_face"]), *judge, "mtcnn"])
    return asked


def _evaluate(common: list[str], weights: Path, output: Path) -> list[str]:
    return [
        "evaluate",
        *common,
        "--weights",
        str(weights),
        "--test_dataset",
        *DATASETS,
        "--output_dir",
        str(output),
    ]


def _step(title: str, command: list[str]) -> None:
    print(f"\n== {title}\n$ effort-finetune {shlex.join(command)}", flush=True)
    run_command(command)


def build_missing(root: Path, *, rebuild: bool) -> None:
    """Generates the datasets that a host lacks, or all of them anew."""
    lmdb_dir, json_dir = root / "datasets" / "lmdb", root / "preprocessing" / "dataset_json"
    missing = [n for n in DATASETS if rebuild or not (json_dir / f"{n}.json").is_file()]
    if not missing:
        print("== Demo data: already there")
        return
    from examples.demo.build import build_demo

    print(f"== Generating {', '.join(missing)}: faces and forgeries, in DeepfakeBench's format", flush=True)
    start = time.perf_counter()
    build_demo(lmdb_dir, json_dir, names=missing)
    print(f"   {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
