"""Makes the demo weights: ``demo_clip/`` and ``demo_effort_familyA.pth`` of the embedded host.

python -m examples.demo.make_demo_weights

Stage 1 (``pretrain_demo_tower.py``): a small CLIP tower learns the attributes of demo faces.
Stage 2: the product's own ``finetune`` makes an Effort detector of it on forgeries of family A: attention
weights split by SVD, only residuals and head trained. Its people are not those of the demo's own DemoA.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch

from effort_finetune.cli.main import main as effort_finetune
from examples.demo import Size, build_demo
from examples.demo.pretrain_demo_tower import make_studies, pretrain, save_clip_folder

HOST = Path(__file__).resolve().parents[2] / "DeepfakeBench"
HERE = HOST / "training" / "pretrained"
CHECKPOINT = "demo_effort_familyA.pth"
EFFORT = {
    "optimizer.lr": "0.002",
    "nEpochs": "8",
    "train_batchSize": "16",
    "lr_scheduler": "cosine",
    "lr_T_max": "8",
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE, help="folder that gets the weights")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--people", type=int, default=2500, help="people in stage 1, four pictures each")
    parser.add_argument("--steps", type=int, default=2500, help="steps of stage 1, 32 pictures each")
    parser.add_argument("--pairs", type=int, default=320, help="pairs of videos in stage 2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--skip_tower", action="store_true", help="stage 2 alone, on the tower in --output")
    return parser.parse_args()


def make_tower(args: argparse.Namespace) -> None:
    """Runs stage 1 and writes the CLIP folder."""
    studies = make_studies(args.seed, args.people, args.processes)
    tower, errors = pretrain(studies, steps=args.steps, seed=args.seed)
    print(f"held-out people: unexplained variance of the attributes {errors}")
    save_clip_folder(tower, args.output / "demo_clip")


def make_detector(args: argparse.Namespace) -> int:
    """Runs stage 2 and copies the checkpoint that the validation split chose."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = Size(train=args.pairs, val=48, test=48, frames=2)
        build_demo(
            root / "lmdb",
            root / "json",
            seed=args.seed,
            names=["DemoA"],
            sizes={"DemoA": size},
            processes=args.processes,
        )
        command = ["finetune", "--host", str(HOST), "--clip_path", str(args.output / "demo_clip")]
        command += ["--lmdb_dir", str(root / "lmdb"), "--dataset_json_folder", str(root / "json")]
        command += ["--train_dataset", "DemoA", "--test_dataset", "DemoA", "--manualSeed", str(args.seed)]
        command += ["--output_dir", str(root / "run"), "--save_to", str(root / CHECKPOINT)]
        for key, value in EFFORT.items():
            command += [f"--{key}", value]
        code = effort_finetune(command)
        if code == 0:
            shutil.copyfile(root / "run" / "ckpt_best.pth", args.output / CHECKPOINT)
    return code


def main() -> int:
    """Runs both stages."""
    args = _arguments()
    torch.set_num_threads(args.processes)
    if not args.skip_tower:
        make_tower(args)
    return make_detector(args)


if __name__ == "__main__":
    raise SystemExit(main())
