"""Compares what can be trained of a tower, all in the one engine: few shots of a new forgery, one each video.

    python benchmarks/baselines.py --host HOST                       # the demo's tower, three seeds
    python benchmarks/baselines.py --host HOST --clip FOLDER --seeds 1 --methods head layernorm lora8 k1 full
    python benchmarks/baselines.py --host HOST --rates 1 --seeds 1 --methods head --epochs 1   # does it run?

HOST is a host with the demo's three datasets: a copy of DeepfakeBench/ in which `python -m examples.demo.run`
was run. Every method trains on DemoB alone and is tested on DemoB (in domain), DemoC (a forgery that nobody
trained on) and DemoA (what the starting weights knew). Its rate is the one of `--rates` times its usual
one that is best on DemoB's val videos at the first seed, tests unseen. FOLDER's own input size is
used: positions resampled to a smaller one make a tower that a CPU can train. A run is a process of its own;
what is done is kept, and a second call does only what is missing. Seconds are the processor's, of the
training loop alone, in one thread; with --device cuda the clock's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from run import machine, software

import effort_finetune as ef
from effort_finetune.core.files import write_json
from effort_finetune.core.strict_json import read_json
from effort_finetune.evaluate import results as results_file
from effort_finetune.export.merged import export_merged
from effort_finetune.train.loop import TrainingLoop

HERE = Path(__file__).parent
SETS = {"in_domain": "DemoB", "out_of_domain": "DemoC", "old": "DemoA"}
FIRST_SEED = 1

#: Name to settings and usual learning rate. ``anew``: the starting weights are merged and decomposed again.
METHODS: dict[str, dict[str, Any]] = {
    "head": {"tune_mode": "head", "rate": 1e-2},
    "layernorm": {"tune_mode": "layernorm", "rate": 2e-3},
    "bitfit": {"tune_mode": "bitfit", "rate": 2e-3},
    "lora1": {"tune_mode": "lora", "lora": {"rank": 1, "alpha": 1}, "rate": 2e-3},
    "lora8": {"tune_mode": "lora", "lora": {"rank": 8, "alpha": 8}, "rate": 2e-3},
    "dora8": {"tune_mode": "dora", "lora": {"rank": 8, "alpha": 8}, "rate": 2e-3},
    "k1": {"tune_mode": "residual", "rate": 2e-3},
    "k1_anew": {"tune_mode": "residual", "residual_rank": 1, "anew": True, "rate": 2e-3},
    "k2": {"tune_mode": "residual", "residual_rank": 2, "anew": True, "rate": 2e-3},
    "k4": {"tune_mode": "residual", "residual_rank": 4, "anew": True, "rate": 2e-3},
    "k8": {"tune_mode": "residual", "residual_rank": 8, "anew": True, "rate": 2e-3},
    "k16": {"tune_mode": "residual", "residual_rank": 16, "anew": True, "rate": 2e-3},
    "osf16": {"tune_mode": "osf", "residual_rank": 16, "anew": True, "rate": 2e-3},
    "full": {"tune_mode": "full", "rate": 2e-4},
}


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(1)
    tower = "demo" if options.clip is None else "clip"
    document = read_json(options.output) if options.output.is_file() else {"schema_version": 1, "towers": {}}
    made = document["towers"].setdefault(tower, {"protocol": protocol(options), "runs": {}})
    with tempfile.TemporaryDirectory() as scratch:
        if "before" not in made and options.clip is None:
            made["before"] = in_process(before, options, Path(scratch))
        for name, rate, seed in todo(options, made["runs"]):
            key = f"{name} rate {rate:g} seed {seed}"
            if key not in made["runs"]:
                made["runs"][key] = in_process(train, options, Path(scratch), name, rate, seed)
                print(
                    key, {k: v for k, v in made["runs"][key].items() if not isinstance(v, dict)}, flush=True
                )
            made["table"] = table(options, made["runs"])
            write_json(options.output, document)
    # Last: CUDA that is used in this process is lost to its forks.
    made |= {"machine": machine(1, options.device), "software": software()}
    write_json(options.output, document)
    return 0


def todo(options: argparse.Namespace, runs: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Yields method, rate and seed: the usual rates first, then the others, then more seeds of the best."""
    for factor in options.rates:
        for name in options.methods:
            yield name, METHODS[name]["rate"] * factor, FIRST_SEED
    for seed in range(FIRST_SEED + 1, FIRST_SEED + options.seeds):
        for name in options.methods:
            yield name, chosen_rate(name, runs), seed


def chosen_rate(name: str, runs: dict[str, Any]) -> float:
    """Returns the rate that is best on val at the first seed; of equal ones the lower loss on val decides."""
    tried = [run for run in runs.values() if run["method"] == name and run["seed"] == FIRST_SEED]
    best: dict[str, Any] = max(tried, key=lambda run: (run["val_auc"], -run["val_loss"]))
    return float(best["rate"])


def in_process(function: Any, *arguments: Any) -> Any:
    """Calls a function in a fork, so that its memory is its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def call() -> None:
        before_it = peak_mib()
        result = function(*arguments)
        sender.send({**result, "memory_mib": peak_mib() - (0 if torch.cuda.is_initialized() else before_it)})

    process = context.Process(target=call)
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def peak_mib() -> float:
    """Peak of the device's memory where CUDA is used, else of the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settings_of(options: argparse.Namespace, host: Any, **flags: Any) -> ef.Settings:
    return host.settings(
        "train",
        **{
            "test_dataset": list(SETS.values()),
            "train_batchSize": 16,
            "workers": 0,
            "device": options.device,
            "precision": options.precision,
            **({} if options.clip is None else {"resolution": side_of(options.clip)}),
            "lr_scheduler": "cosine",
            "lr_T_max": options.epochs,
            "nEpochs": options.epochs,
            "data_aug": {"blur_prob": 0.0},
            "frame_num": {"train": 1, "test": options.test_frames},
            "bootstrap_samples": 100,
            "save_to": None,
            **flags,
        },
    )


def side_of(clip: Path) -> int:
    """Returns the side in pixels of a CLIP folder's input."""
    config = read_json(clip / "config.json")
    return int(config.get("vision_config", config)["image_size"])


def starting_weights(options: argparse.Namespace, scratch: Path, *, anew: bool) -> dict[str, Any]:
    if options.clip is not None:
        return {"clip_path": str(options.clip)}
    weights = options.host / "training" / "pretrained" / "demo_effort_familyA.pth"
    if not anew:
        return {"pretrained_weights": str(weights)}
    if not (scratch / "merged").is_dir():
        export_merged(ef.read_checkpoint(weights), scratch / "merged")
    return {"pretrained_weights": str(scratch / "merged")}


def before(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Scores the starting weights."""
    host = ef.open_host(options.host)
    start = starting_weights(options, scratch, anew=False)
    weights = start.pop("pretrained_weights")
    ef.evaluate(settings_of(options, host), host, weights=weights, output_dir=scratch / "before")
    return scores(results_file.read(scratch / "before"))


def train(options: argparse.Namespace, scratch: Path, name: str, rate: float, seed: int) -> dict[str, Any]:
    """Makes one run and returns what the table needs of it."""
    method = {k: v for k, v in METHODS[name].items() if k not in ("rate", "anew")}
    start = starting_weights(options, scratch, anew=METHODS[name].get("anew", False))
    host = ef.open_host(options.host)
    spent = 0.0
    epoch = TrainingLoop.run_epoch
    clock = time.process_time if options.device == "cpu" else time.perf_counter

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal spent
        began = clock()
        try:
            return epoch(*args, **kwargs)
        finally:
            spent += clock() - began

    TrainingLoop.run_epoch = timed  # type: ignore[method-assign]  # of this process alone
    folder = Path(tempfile.mkdtemp(dir=scratch))
    settings = settings_of(
        options,
        host,
        **method,
        **start,
        train_dataset=["DemoB"],
        optimizer={"lr": rate},
        manualSeed=seed,
        output_dir=str(folder),
    )
    outcome = ef.finetune(settings, host)
    document = results_file.read(outcome.run_dir)
    training = document["training"]
    chosen = next(e for e in training["history"] if e["epoch"] == training["selection"]["epoch"])
    return {
        "method": name,
        "rate": rate,
        "seed": seed,
        "val_auc": training["selection"]["value"],
        "val_loss": chosen["selection"]["DemoB"]["loss"],
        "gain": training["gain"],
        "trainable": training["trainable"],
        "seconds": spent,
        "epoch_file_mb": (folder / "ckpt_last.pth").stat().st_size / 1e6,
        **scores(document),
    }


def scores(document: dict[str, Any]) -> dict[str, Any]:
    videos = {kind: document["datasets"][name]["video"] for kind, name in SETS.items()}
    return {
        **{kind: video["auc"] for kind, video in videos.items()},
        "intervals": {kind: video["ci95"]["intervals"]["auc"] for kind, video in videos.items()},
    }


def table(options: argparse.Namespace, runs: dict[str, Any]) -> dict[str, Any]:
    """Returns one row a method: mean and deviation over the seeds at its chosen rate."""
    rows = {}
    for name in METHODS:
        if not any(run["method"] == name for run in runs.values()):
            continue
        rate = chosen_rate(name, runs)
        own = [run for run in runs.values() if run["method"] == name and run["rate"] == rate]
        tried = [run for run in runs.values() if run["method"] == name and run["seed"] == FIRST_SEED]
        rows[name] = {
            "rate": rate,
            "rates_tried": sorted(run["rate"] for run in tried),
            "seeds": len(own),
            "trainable": own[0]["trainable"]["trainable"],
            "share": own[0]["trainable"]["share"],
            **{kind: spread([run[kind] for run in own]) for kind in SETS},
            "seconds": statistics.median(run["seconds"] for run in own),
            "memory_mib": statistics.median(run["memory_mib"] for run in own),
            "epoch_file_mb": own[0]["epoch_file_mb"],
        }
    return rows


def spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def protocol(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "trained_on": "DemoB, 1 frame of each of its 256 training videos",
        "tested_on": {kind: f"{name}, {options.test_frames} frames a video" for kind, name in SETS.items()},
        "epochs": options.epochs,
        "batch": 16,
        "optimiser": "adam, cosine over the epochs; checkpoint and rate by video AUC on val",
        "precision": options.precision,
        **({} if options.clip is None else {"resolution": side_of(options.clip)}),
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument(
        "--clip", type=Path, help="plain CLIP to start from, in place of the demo's checkpoint"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--rates", nargs="+", type=float, default=[1.0, 0.3, 3.0], help="times the usual rate"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--test_frames", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument(
        "--device", default="cpu", help="of cuda, seconds are the clock's and MiB the device's"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results" / "baselines.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
