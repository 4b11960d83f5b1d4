"""Several processes make the run that one makes; one that dies ends all of them, and the run goes on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.data.frames import FrameDataset, Missing
from effort_finetune.evaluate import dataset_scores, evaluation, score_file
from effort_finetune.evaluate import results as results_file
from effort_finetune.host import open_host
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train import setup
from effort_finetune.train.finetuning import finetune
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.weights import run_state

from .conftest import COMMAND, EMBEDDED, Bench, write_dataset
from .several import several

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked here")

#: Last batch of 1 frame (27 frames), last step of 1 batch; 2 epochs, augmented.
RUN: dict[str, Any] = {
    "nEpochs": 2,
    "train_batchSize": 4,
    "accumulation_steps": 3,
    "use_data_augmentation": True,
    "test_dataset": ["Toy"],
    "loss.class_weights": "balanced",
    "clip_grad_norm": 1.0,
    "hard_examples": 0.2,
    "save_to": None,
}


def in_float64(patch: pytest.MonkeyPatch) -> None:
    """Frames, weights and gradients of every run from here on; two residuals begin as singular: S is 0."""
    build, read = setup.build_model, FrameDataset.__getitem__

    def wide(*args: Any) -> EffortFinetuneDetector:
        model = build(*args).double()
        if args[0].settings.resume is None:
            for name, parameter in model.named_parameters():
                if name.endswith("S_residual") and "layers.0" in name:
                    parameter.data.zero_()
        return model

    def frame(self: FrameDataset, index: int) -> Any:
        item = read(self, index)
        return item if isinstance(item, Missing) else {**item, "image": item["image"].double()}

    patch.setattr(setup, "build_model", wide)
    patch.setattr(FrameDataset, "__getitem__", frame)


def dying(patch: pytest.MonkeyPatch, rank: int, *, step: int) -> None:
    """Kills the process of this rank before it makes a step, as the system does that wants its memory."""
    original, made = TrainingLoop._step, []

    def counting(self: TrainingLoop, *args: Any) -> float:
        made.append(1)
        if len(made) == step and os.environ.get("RANK") == str(rank):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args)

    patch.setattr(TrainingLoop, "_step", counting)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A dataset whose training frames (27) no batch size divides, and a patch for the module."""
    root = tmp_path_factory.mktemp("several")
    write_dataset(root, "Toy", {"train": 5, "val": 2, "test": 2}, leave_out=3)
    import toyhost

    toyhost.save_clip(root / "clip")
    return Bench(open_host(EMBEDDED), root)


def run(place: Bench, folder: str, size: int, **flags: Any) -> list[int | None]:
    """Makes a run of ``size`` processes in a folder."""
    settings = place.settings(
        **{"max_missing_rate": 0.2, **RUN, **flags, "output_dir": str(place.root / folder)}
    )

    def work(rank: int) -> None:
        finetune(settings, place.host, command=COMMAND)

    if size == 1:
        work(0)
        return [0]
    return several(size, work)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / run_state.BEST_NAME, weights_only=True)


def farthest(left: Path, right: Path) -> float:
    one, other = weights(left), weights(right)
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def numbers(folder: Path) -> list[float]:
    """Every loss and metric of a run's history and test, in one order."""
    document = results_file.read(folder)
    history = document["training"]["history"]
    found = [value for entry in history for value in entry["train"]["loss"].values()]
    found += [v for e in history for v in e["selection"]["Toy"].values() if v is not None]
    return found + [v for v in document["datasets"]["Toy"]["video"].values() if isinstance(v, float)]


@pytest.fixture(scope="module")
def one_and_two(place: Bench) -> tuple[Path, Path]:
    """Folders of a run of one process and of the same run of two, in float64."""
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        assert run(place, "one", 1) == [0]
        assert run(place, "two", 2) == [0, 0]
    return place.root / "one", place.root / "two"


def test_two_processes_make_the_run_of_one(one_and_two):
    one, two = one_and_two
    assert farthest(one, two) < 1e-12
    assert numbers(one) == pytest.approx(numbers(two), abs=1e-6)  # losses are reported in float32
    left, right = (results_file.read(folder) for folder in one_and_two)
    counts = ("steps", "batches", "samples", "real", "fake", "missing")
    for a, b in zip(left["training"]["history"], right["training"]["history"], strict=True):
        assert {k: a["train"][k] for k in counts} == {k: b["train"][k] for k in counts}
        assert a["train"]["missing"] == 3
    assert [entry["ranks"] for entry in right["training"]["processes"]] == [2]
    scores = [(folder / "scores" / "Toy.csv").read_text().splitlines() for folder in one_and_two]
    assert len(scores[0]) == len(scores[1])


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_killed_ends_all_and_the_run_goes_on_with_one(place, one_and_two, rank):
    folder = place.root / f"killed{rank}"
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        with patch.context() as killing:
            dying(killing, rank, step=2)
            codes = run(place, folder.name, 2)
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] == 1
        document = results_file.read(folder)
        assert document["status"] == "failed"
        assert "another process of the run is gone" in document["reason"]
        assert "--resume" in document["reason"]
        assert run_state.load_last(folder)["progress"]["steps"] == 1
        assert run(place, folder.name, 1, resume=str(folder)) == [0]
    assert farthest(one_and_two[0], folder) < 1e-12
    assert [entry["ranks"] for entry in results_file.read(folder)["training"]["processes"]] == [2, 1]


def test_what_one_process_says_ends_all_with_its_words(place):
    """A refusal of one is that of all, whichever it is; nothing is written."""

    def work(rank: int) -> None:
        settings = place.settings(**RUN, output_dir=str(place.root / "no"), manualSeed=rank)
        with pytest.raises(UserError, match=r"process 1 of 2; got other settings than process 0"):
            finetune(settings, place.host, command=COMMAND)

    assert several(2, work) == [0, 0]
    assert not (place.root / "no").exists()


def test_hard_examples_and_adapters_are_those_of_one_process(place, monkeypatch):
    """Each process learns every frame's loss, or their orders of the next epoch would differ."""
    pytest.importorskip("peft", reason="the peft extra is not installed")
    in_float64(monkeypatch)
    flags = {"hard_examples": 0.4, "tune_mode": "lora", "lora.rank": 2}
    for size in (1, 2):
        assert run(place, f"hard_{size}", size, **flags) == [0] * size
    one, two = (run_state.load_last(place.root / f"hard_{size}") for size in (1, 2))
    torch.testing.assert_close(one["hard_examples"]["known"], two["hard_examples"]["known"])
    assert (
        farthest(place.root / "hard_1", place.root / "hard_2") < 1e-6
    )  # merged in float64, saved in float32


STAGES = [
    {"nEpochs": 1, "tune_mode": "head", "optimizer": {"lr": 1e-2}},
    {"nEpochs": 1, "tune_mode": "residual", "optimizer": {"lr": 1e-3}},
]


def test_killed_in_the_second_stage_the_run_goes_on_with_one(place, monkeypatch):
    """Each stage is one run of all processes; what goes on with one ends where none was killed."""
    in_float64(monkeypatch)
    flags = {"stages": STAGES, "hard_examples": 0.0}
    assert run(place, "stages_whole", 1, **flags) == [0]
    folder = place.root / "stages_killed"
    with monkeypatch.context() as killing:
        dying(killing, 1, step=5)  # a stage's epoch has 3 steps
        codes = run(place, folder.name, 2, **flags)
    assert codes == [1, -signal.SIGKILL]
    reason = results_file.read(folder)["reason"]
    assert reason.startswith("another process of the run is gone")
    assert reason.endswith(f"--resume {folder}")
    assert run_state.load_last(folder)["progress"]["steps"] == 1
    assert (folder / "stage_1" / run_state.BEST_NAME).is_file()
    assert run(place, folder.name, 1, resume=str(folder), **flags) == [0]
    assert farthest(place.root / "stages_whole", folder) < 1e-12
    assert numbers(place.root / "stages_whole") == pytest.approx(numbers(folder), abs=1e-6)


def measure(place: Bench, folder: str, size: int, **flags: Any) -> list[int | None]:
    """Evaluates the weights of the run of one process with ``size`` processes."""
    settings = place.settings(
        **{"test_dataset": ["Toy"], "max_missing_rate": 0.2, "robustness": ["jpeg"], "save_to": None, **flags}
    )
    weights, own = place.root / "one" / run_state.BEST_NAME, place.root / folder

    def work(rank: int) -> None:
        evaluation.evaluate(settings, place.host, weights=weights, output_dir=own, command=COMMAND)

    return several(size, work) if size > 1 else [work(0) or 0]


def test_an_evaluation_of_several_processes_is_that_of_one(place, one_and_two):
    for size in (1, 2, 3):
        assert measure(place, f"measured_{size}", size) == [0] * size
    one, *others = (results_file.read(place.root / f"measured_{size}") for size in (1, 2, 3))
    for other in others:
        for level in ("frame", "video"):
            left, right = (found["datasets"]["Toy"][level] for found in (one, other))
            assert left.keys() == right.keys()
            for name, value in left.items():
                if isinstance(value, float):
                    assert value == pytest.approx(right[name], abs=1e-5), name
            assert left["ci95"] is not None
        assert other["datasets"]["Toy"]["counts"] == one["datasets"]["Toy"]["counts"]
        curves = [found["datasets"]["Toy"]["robustness"]["corruptions"]["jpeg"] for found in (one, other)]
        assert [p["auc"] for p in curves[0]["levels"]] == [p["auc"] for p in curves[1]["levels"]]
    read = [
        score_file.read_scores(place.root / f"measured_{size}" / "scores" / "Toy.csv") for size in (1, 2, 3)
    ]
    for other in read[1:]:
        assert other.frame == read[0].frame
        assert other.prob == pytest.approx(read[0].prob, abs=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_evaluation_ends_where_one_process_is_killed(place, one_and_two, rank):
    folder = f"dead_{rank}"
    with pytest.MonkeyPatch.context() as patch:
        original = dataset_scores.score

        def dies(*args: Any, **kwargs: Any) -> Any:
            if os.environ.get("RANK") == str(rank):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        patch.setattr(dataset_scores, "score", dies)
        codes = measure(place, folder, 2)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 1
    if rank == 1:
        found = results_file.read(place.root / folder)
        assert found["status"] == "failed"
        assert "another process of the run is gone" in found["reason"]
    else:
        assert not (place.root / folder / "results.json").exists()


def test_processes_that_would_measure_other_things_are_refused(place, one_and_two):
    weights = place.root / "one" / run_state.BEST_NAME

    def work(rank: int) -> None:
        settings = place.settings(test_dataset=["Toy"], max_missing_rate=0.2, manualSeed=rank)
        with pytest.raises(UserError, match=r"process 1 of 2; got other settings than process 0"):
            evaluation.evaluate(settings, place.host, weights=weights, output_dir=place.root / "differ")

    assert several(2, work) == [0, 0]
    assert not (place.root / "differ").exists()


@pytest.mark.fuzz
def test_three_processes_make_the_run_of_one_in_float64(place, one_and_two):
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        assert run(place, "three", 3) == [0, 0, 0]
    assert farthest(one_and_two[0], place.root / "three") < 1e-12
    assert numbers(one_and_two[0]) == pytest.approx(numbers(place.root / "three"), abs=1e-6)


@pytest.mark.fuzz
def test_in_float32_several_processes_end_where_one_does(place):
    """No weight is further off than 1 % of the largest change that training made, no metric than 1e-4."""
    for name, size in {"single": 1, "double": 2, "triple": 3}.items():
        assert run(place, name, size, **{"optimizer.lr": 1e-3}) == [0] * size
    run(place, "begun", 1, **{"optimizer.lr": 1e-30, "optimizer.weight_decay": 0.0})
    changed = farthest(place.root / "begun", place.root / "single")
    for name in ("double", "triple"):
        assert farthest(place.root / "single", place.root / name) < 0.01 * changed
        assert numbers(place.root / "single") == pytest.approx(numbers(place.root / name), abs=1e-4)


@pytest.mark.fuzz
@pytest.mark.parametrize("size", [2, 3])
def test_a_step_in_float32_has_the_gradient_of_one_process(place, size):
    """To 1e-6 of its length, over uneven batches."""
    kept: dict[str, Any] = {}
    original = TrainingLoop._gradient

    def keeping(self: TrainingLoop, *args: Any) -> Any:
        made = original(self, *args)
        if os.environ.get("RANK", "0") == "0" and "gradient" not in kept:
            kept["gradient"] = [p.grad.clone() for p in self.parameters if p.grad is not None]
            torch.save(kept["gradient"], place.root / f"gradient{os.environ.get('WORLD_SIZE', 1)}.pt")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_gradient", keeping)
        for count in (1, size):
            kept.clear()
            flags = {"nEpochs": 1, "train_batchSize": 7, "accumulation_steps": 2}
            assert run(place, f"step{size}_{count}", count, **flags) == [0] * count
    one, several_ = (torch.load(place.root / f"gradient{n}.pt", weights_only=True) for n in (1, size))
    one, several_ = (torch.cat([value.flatten() for value in found]) for found in (one, several_))
    assert float((one - several_).norm()) <= 1e-6 * float(one.norm())
