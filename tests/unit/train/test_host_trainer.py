"""The trainer as a host's train.py uses it: the host's dataset, loaders, optimiser and dictionary."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.evaluate import results
from effort_finetune.evaluate.evaluation import evaluate_model
from effort_finetune.evaluate.score_file import read_scores
from effort_finetune.guest.loader_frames import loader_frames
from effort_finetune.guest.registry import register_plugin
from effort_finetune.guest.trainer import EffortFinetuneTrainer
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.weights.run_state import load_last

from .conftest import Bench
from .test_resume import assert_equal

NUMBERS = "effort_finetune.guest.trainer.numbers_of"  # what a test set gives after an epoch


class HostRun:
    """What a host's train.py makes before it makes the trainer."""

    def __init__(
        self, bench: Bench, *, model: type[nn.Module] = EffortFinetuneDetector, **flags: Any
    ) -> None:
        self.bench = bench
        self.settings = bench.settings(test_dataset=["Toy"], **flags)
        self.config = {
            **self.settings.to_dict(),
            "log_dir": str(bench.root / "logs"),
            "output_dir": None,
            "ddp": False,
            "SWA": False,
            "save_ckpt": True,
            "cuda": True,
        }
        torch.manual_seed(0)
        self.model = model(self.config)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.train = self.loader("train", shuffle=True)
        self.test = {"Toy": self.loader("test")}

    def loader(self, mode: str, *, shuffle: bool = False) -> DataLoader[Any]:
        config = self.config if mode == "train" else {**self.config, f"{mode}_dataset": "Toy"}
        dataset = self.bench.host.dataset_class(config, mode)
        return DataLoader(dataset, batch_size=4, shuffle=shuffle, collate_fn=dataset.collate_fn)

    def trainer(self, scheduler: Any = None, metric: str = "auc", **config: Any) -> EffortFinetuneTrainer:
        self.config.update(config)
        logger = logging.getLogger("host.train")
        return EffortFinetuneTrainer(
            *(self.config, self.model, self.optimizer, scheduler, logger, metric),
            time_now="now",
            host=self.bench.host,
        )


class WithStatistics(nn.Module):
    """A detector of a host's: buffers that move, weights that are frozen and moved by hand, dropout."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 2)
        self.average = nn.Parameter(torch.zeros(2, 3), requires_grad=False)

    def forward(self, data_dict: dict[str, Any], inference: bool = False) -> dict[str, torch.Tensor]:
        features = functional.dropout(self.norm(data_dict["image"]).mean((2, 3)), 0.3, self.training)
        if self.training:
            self.average.data = 0.9 * self.average.data + 0.1 * self.head.weight.data
        logits = self.head(features)
        return {"cls": logits, "prob": logits.softmax(1)[:, 1], "feat": features}

    def get_losses(self, data_dict: dict[str, Any], pred_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"overall": functional.cross_entropy(pred_dict["cls"], data_dict["label"])}


def test_one_epoch_under_the_contract(bench):
    run = HostRun(bench, nEpochs=1)
    trainer = run.trainer()
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    best = trainer.train_epoch(epoch=0, train_data_loader=run.train, test_data_loaders=run.test)
    assert set(best) == {"Toy", "avg"}
    assert {"auc", "eer", "acc", "ap", "video_auc", "precision", "recall", "f1"} <= set(best["Toy"])
    assert all(isinstance(value, float) for value in best["Toy"].values())
    after = run.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if n.startswith("head.") or n.endswith("_residual")}
    folder = bench.root / "logs" / "effort_finetune_now"
    assert {"ckpt_last.pth", "ckpt_best.pth"} <= {path.name for path in folder.iterdir()}
    assert run.model.device == torch.device("cpu")
    for writer in trainer.writers.values():  # as a host's train.py does at its end
        writer.close()
    board = EventAccumulator(str(folder))
    board.Reload()
    assert {"train/overall", "train/lr", "test/Toy/video_auc", "test/Toy/loss"} <= set(
        board.Tags()["scalars"]
    )


def test_numbers_are_evaluates_and_the_hosts(bench):
    """On complete data all three agree on frames; the host's own numbers stand beside ours."""
    run = HostRun(bench)
    best = run.trainer().train_epoch(0, run.train, run.test)["Toy"]
    ours = evaluate_model(run.model, bench.host, run.settings, ["Toy"], "test", autocast=None)
    for metric in ("auc", "eer", "acc", "ap", "video_auc"):
        assert best[metric] == pytest.approx(ours.datasets["Toy"].metric(metric), abs=1e-12), metric
        assert best[f"host_{metric}"] == pytest.approx(best[metric], abs=1e-9), metric


def test_a_driven_run_leaves_what_finetune_leaves(bench):
    """A detector of the host's: results by the schema, scores, settings and log, of the selected weights."""
    run = HostRun(bench, model=WithStatistics, nEpochs=2, model_name="statistics", bootstrap_samples=20)
    trainer = run.trainer()
    for epoch in range(3):
        best = trainer.train_epoch(epoch, run.train, run.test)
    names = {"results.json", "settings.yaml", "finetuning.log", "ckpt_best.pth", "ckpt_last.pth", "scores"}
    assert names <= {path.name for path in trainer.log_dir.iterdir()}
    document = results.read(trainer.log_dir)
    assert (document["kind"], document["status"]) == ("finetuning", "complete")
    assert document["checkpoint"]["detector"] == document["checkpoint"]["asked_for"] == "statistics"
    block, training = document["datasets"]["Toy"], document["training"]
    assert block["frame"]["auc"] == best["Toy"]["auc"]
    assert block["video"]["auc"] == best["Toy"]["video_auc"]
    assert "auc" in block["video"]["ci95"]["intervals"]
    assert block["protocol"]["datasets"]["Toy"]["host_listing"] == "equal"
    assert len(training["history"]) == 2
    assert training["selection"]["oracle"] is True
    assert training["data"]["frames"] == len(run.train.dataset)
    assert training["data"]["order"] == "as the host's own loader draws it"
    assert any("an oracle" in warning for warning in block["warnings"])
    scores = read_scores(trainer.log_dir / block["scores"], sha256=block["scores_sha256"])
    assert len(scores.frame) == len(run.test["Toy"].dataset)
    written = torch.load(trainer.log_dir / "ckpt_best.pth", weights_only=True)
    run.model.load_state_dict({name: written[name] for name in run.model.state_dict()})
    again = evaluate_model(run.model, bench.host, run.settings, ["Toy"], "test", autocast=None)
    assert again.datasets["Toy"].block["frames_sha256"] == block["frames_sha256"]
    assert again.metric("auc") == block["frame"]["auc"]


def test_a_failed_driven_run_says_why_in_its_results(bench):
    run = HostRun(bench, model=WithStatistics)
    with torch.no_grad():
        run.model.head.weight[0, 0] = np.nan
    trainer = run.trainer()
    with pytest.raises(RunFailure, match="not finite"):
        trainer.train_epoch(0, run.train, run.test)
    document = results.read(trainer.log_dir)
    assert document["status"] == "failed"
    assert "not finite" in document["reason"]


def test_another_frame_in_the_place_of_one_is_missing_not_scored(bench):
    """What the host's class puts in the place of a frame that it cannot read is seen by its label."""
    run = HostRun(bench, model=WithStatistics, max_missing_rate=0.5)
    dataset = run.test["Toy"].dataset
    fake = next(i for i, label in enumerate(dataset.data_dict["label"]) if label)
    real = next(i for i, label in enumerate(dataset.data_dict["label"]) if not label)
    original = type(dataset).__getitem__

    class Substituting(type(dataset)):
        def __getitem__(self, index):
            return original(self, real if index == fake else index)

    dataset.__class__ = Substituting
    trainer = run.trainer()
    trainer.train_epoch(0, run.train, run.test)
    trainer.train_epoch(1, run.train, run.test)
    block = results.read(trainer.log_dir)["datasets"]["Toy"]
    assert block["missing"] == [dataset.data_dict["image"][fake]]
    assert block["counts"]["frames_scored"] == len(dataset) - 1


def test_a_loader_without_a_listing_is_trained_on_and_not_counted(bench):
    """Datasets of pairs keep no lists of frames: results say so in place of a number."""
    run = HostRun(bench, model=WithStatistics, nEpochs=1)
    run.train.dataset.data_dict = {"image": run.train.dataset.data_dict["image"], "label": None}
    frames = loader_frames(bench.host, run.settings, run.train, split="train", names=["Toy"])
    assert frames.rows == []
    assert "not counted" in " ".join(frames.protocol["datasets"]["Toy"]["warnings"])
    frames = loader_frames(bench.host, run.settings, run.test["Toy"], split="test", names=["Nowhere"])
    assert len(frames.rows) == len(run.test["Toy"].dataset)
    assert frames.protocol["datasets"]["Nowhere"]["host_listing"].startswith("not comparable")


def test_same_names_in_two_classes_stay_two_videos(bench):
    """The toy's real and fake videos share folder names: grouping by name would give 2 videos, not 4."""
    run = HostRun(bench)
    names = [path.replace("\\", "/").split("/")[-2] for path in run.test["Toy"].dataset.data_dict["image"]]
    assert len(set(names)) == 2
    best = run.trainer().train_epoch(0, run.train, run.test)["Toy"]
    assert best["video_acc_real"] in (0.0, 0.5, 1.0)
    assert best["video_acc_fake"] in (0.0, 0.5, 1.0)


def test_exactly_nepochs_in_upstreams_loop(bench):
    run = HostRun(bench, nEpochs=2)
    trainer = run.trainer()
    trained = []
    step = trainer.engine.loop.run_epoch
    trainer.engine.loop.run_epoch = lambda loader, progress, **options: (
        trained.append(progress.epoch) or step(loader, progress, **options)
    )
    for epoch in range(0, 2 + 1):  # as upstream's train.py counts
        best = trainer.train_epoch(epoch, run.train, run.test)
    assert trained == [0, 1]
    assert best == trainer.best_results


def test_the_hosts_scheduler_steps_and_a_missing_one_is_built(bench):
    run = HostRun(bench, nEpochs=3)
    trainer = run.trainer(torch.optim.lr_scheduler.StepLR(run.optimizer, 1, gamma=0.1))
    trainer.train_epoch(0, run.train, {})
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
    other = HostRun(bench, nEpochs=3, lr_scheduler="linear", lr_T_max=2)
    other.trainer(None).train_epoch(0, other.train, {})
    assert other.optimizer.param_groups[0]["lr"] == pytest.approx((1e-3 + 1e-6) / 2)


def test_the_numbers_of_the_best_epoch_are_returned_and_called_an_oracle(bench, monkeypatch):
    run = HostRun(bench, nEpochs=3)
    trainer = run.trainer()
    numbers = iter([0.5, 0.2, 0.8, 0.3])  # of the weights before the first step, and of three epochs
    monkeypatch.setattr(NUMBERS, lambda result: {"auc": next(numbers), "loss": 1.0})
    seen = [trainer.train_epoch(epoch, run.train, run.test)["Toy"]["auc"] for epoch in range(3)]
    assert seen == [0.2, 0.8, 0.8]
    assert trainer.engine.start["selection_value"] == 0.5
    assert trainer.engine.selector.report(["Toy"])["oracle"] is True


def test_smaller_eer_is_better(bench, monkeypatch):
    run = HostRun(bench, nEpochs=2)
    trainer = run.trainer(metric="eer")
    numbers = iter([0.5, 0.4, 0.1])
    monkeypatch.setattr(NUMBERS, lambda result: {"eer": next(numbers)})
    assert [trainer.train_epoch(e, run.train, run.test)["Toy"]["eer"] for e in range(2)] == [0.4, 0.1]


def test_resume_equals_uninterrupted(bench):
    whole = HostRun(bench, nEpochs=2, use_data_augmentation=True)
    trainer = whole.trainer(output_dir=str(bench.root / "whole"))
    torch.manual_seed(5)  # the host's loader shuffles from the global generator
    for epoch in range(2):
        trainer.train_epoch(epoch, whole.train, whole.test)

    first = HostRun(bench, nEpochs=2, use_data_augmentation=True)
    torch.manual_seed(5)
    first.trainer(output_dir=str(bench.root / "part")).train_epoch(0, first.train, first.test)
    second = HostRun(bench, nEpochs=2, use_data_augmentation=True)
    trainer = second.trainer(
        output_dir=str(bench.root / "part"), resume=str(bench.root / "part" / "ckpt_last.pth")
    )
    assert trainer.start_epoch == 1
    for epoch in range(2):  # a host that knows no start_epoch begins at 0
        trainer.train_epoch(epoch, second.train, second.test)
    assert_equal(whole.model.state_dict(), second.model.state_dict())
    assert_equal(whole.optimizer.state_dict()["state"], second.optimizer.state_dict()["state"])


@pytest.mark.parametrize("step", [1, 3, 9])
def test_any_detector_on_a_hosts_loaders_goes_on_in_the_middle_of_an_epoch(bench, monkeypatch, step):
    """Order, augmentation and dropout draw from the global generators, statistics live in buffers."""

    def started(folder: str, **config: Any) -> tuple[HostRun, EffortFinetuneTrainer]:
        run = HostRun(bench, model=WithStatistics, nEpochs=2, use_data_augmentation=True)
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        return run, run.trainer(output_dir=str(bench.root / folder), **config)

    whole, trainer = started("whole")
    for epoch in range(2):
        trainer.train_epoch(epoch, whole.train, whole.test)
    part, trainer = started("part")
    original, made = TrainingLoop._step, 0

    def dying(self: TrainingLoop, *args: Any) -> float:
        nonlocal made
        made += 1
        if made == step:
            torch.rand(7)  # a step that fails has drawn already
            raise ValueError("a bug")
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", dying)
        if step > 6:
            trainer.train_epoch(0, part.train, part.test)
        with pytest.raises(RunFailure, match="ValueError: a bug; go on with: .*--resume"):
            trainer.train_epoch(int(step > 6), part.train, part.test)
    again, trainer = started("part", resume=str(bench.root / "part"))
    for epoch in range(2):
        trainer.train_epoch(epoch, again.train, again.test)
    assert_equal(whole.model.state_dict(), again.model.state_dict())
    assert_equal(whole.optimizer.state_dict()["state"], again.optimizer.state_dict()["state"])
    histories = [load_last(bench.root / name)["history"] for name in ("whole", "part")]
    assert_equal(*histories)
    files = [(bench.root / name / "ckpt_best.pth").read_bytes() for name in ("whole", "part")]
    assert files[0] == files[1]


def test_where_a_resumed_run_began_stays_on_record(bench):
    part = bench.root / "part"
    first = HostRun(bench)
    first.trainer(output_dir=str(part)).train_epoch(0, first.train, {})
    began = load_last(part)["start_weights"]
    second = HostRun(bench, pretrained_weights=str(part / "ckpt_last.pth"))
    assert second.model.load_report.layout == "deepfakebench"
    second.trainer(output_dir=str(part), resume=str(part)).train_epoch(1, second.train, {})
    assert load_last(part)["epoch"] == 2
    assert load_last(part)["start_weights"] == began


def test_no_save_ckpt_writes_none(bench):
    run = HostRun(bench, nEpochs=1)
    run.trainer(save_ckpt=False).train_epoch(0, run.train, run.test)
    assert not list((bench.root / "logs").rglob("*.pth"))


def test_non_finite_loss_is_a_run_failure(bench):
    run = HostRun(bench)
    with torch.no_grad():
        run.model.head.weight[0, 0] = np.nan
    with pytest.raises(RunFailure, match="not finite"):
        run.trainer().train_epoch(0, run.train, run.test)


@pytest.mark.parametrize("config", [{"ddp": True}, {"metric_scoring": "auroc"}])
def test_what_it_does_not_do_is_a_user_error(bench, config):
    run = HostRun(bench)
    with pytest.raises(UserError):
        run.trainer(metric=config.get("metric_scoring", "auc"), **config)


def test_the_hosts_registry_makes_one_with_the_host(bench):
    register_plugin(bench.host)
    run = HostRun(bench)
    make = bench.host.registry("TRAINER")["effort_finetune"]
    trainer = make(run.config, run.model, run.optimizer, None, logging.getLogger("host.train"), "auc")
    assert isinstance(trainer, EffortFinetuneTrainer)
    assert trainer.host.root == bench.host.root


def test_a_used_folder_holds_one_run(bench):
    folder = bench.root / "run"
    for name in ("UADFV", "Toy"):
        run = HostRun(bench, nEpochs=1)
        trainer = run.trainer(output_dir=str(folder))
        trainer.train_epoch(0, run.train, {name: run.test["Toy"]})
        for writer in trainer.writers.values():
            writer.close()
    assert len(list(folder.glob("events*"))) == len(list((folder / "earlier_1").glob("events*"))) == 1
    assert (folder / "earlier_1" / "ckpt_best.pth").is_file()


def test_the_best_weights_come_along_to_another_folder(bench, monkeypatch):
    """Even if no later epoch is better."""
    numbers = iter([0.5, 0.9, 0.1])
    monkeypatch.setattr(NUMBERS, lambda result: {"auc": next(numbers)})
    first = HostRun(bench, nEpochs=2)
    first.trainer(output_dir=str(bench.root / "one")).train_epoch(0, first.train, first.test)
    second = HostRun(bench, nEpochs=2)
    trainer = second.trainer(output_dir=str(bench.root / "two"), resume=str(bench.root / "one"))
    trainer.train_epoch(1, second.train, second.test)
    selected = load_last(bench.root / "one")["best"]
    written = torch.load(bench.root / "two" / "ckpt_best.pth", weights_only=True)
    assert_equal(selected, {name: written[name] for name in selected})
