"""The trainer on a detector that is one linear layer."""

from __future__ import annotations

import copy
import logging
import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset


class Points(Dataset):
    """Real points lie left of fake ones, in the batch's form."""

    def __init__(self, count=8, labels=(0, 3)):
        self.labels = [labels[i % len(labels)] for i in range(count)]
        generator = torch.Generator().manual_seed(count)
        shift = torch.tensor([[float(label > 0)] for label in self.labels])
        self.points = torch.rand(count, 2, generator=generator) + shift
        names = [f"X\\{label}\\frames\\{i}\\0.png" for i, label in enumerate(self.labels)]
        self.data_dict = {"image": names, "label": self.labels}

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.points[index], self.labels[index]

    @staticmethod
    def collate_fn(batch):
        points, labels = zip(*batch, strict=True)
        return {"image": torch.stack(points), "label": torch.tensor(labels), "landmark": None, "mask": None}


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 2)
        self.seen = []

    def forward(self, data_dict, inference=False):
        self.seen.append((self.training, torch.is_grad_enabled(), data_dict["label"].tolist()))
        logits = self.layer(data_dict["image"])
        return {"cls": logits, "prob": logits.softmax(1)[:, 1], "feat": data_dict["image"]}

    def get_losses(self, data_dict, pred_dict):
        loss = torch.nn.functional.cross_entropy(pred_dict["cls"], data_dict["label"])
        return {"overall": loss}

    def get_train_metrics(self, data_dict, pred_dict):
        return {"acc": None}


def loader(dataset, batch=4, shuffle=False):
    return DataLoader(dataset, batch_size=batch, shuffle=shuffle, collate_fn=dataset.collate_fn)


@pytest.fixture
def make_trainer(tmp_path):
    from trainer import Trainer

    def make_trainer(lr=0.1, metric="auc", scheduler=None, **changes):
        model = Linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        config = {"model_name": "linear", "log_dir": str(tmp_path / "logs"), "rec_iter": 1, "device": "cpu"}
        schedule = scheduler(optimizer) if scheduler else None
        logger = logging.getLogger("test_trainer")
        return Trainer({**config, **changes}, model, optimizer, schedule, logger, metric, time_now="now")

    return make_trainer


def close(trainer):
    for writer in trainer.writers.values():
        writer.close()


def test_an_epoch(make_trainer, tmp_path):
    trainer = make_trainer(save_feat=True)
    best = trainer.train_epoch(
        0, loader(Points(6)), {"X": loader(Points(4), batch=3), "Y": loader(Points(2))}
    )
    close(trainer)
    assert set(best) == {"X", "Y", "avg"}
    assert best["avg"]["acc"] == (best["X"]["acc"] + best["Y"]["acc"]) / 2
    train_steps = [labels for training, grad, labels in trainer.detector.seen if training]
    # The short last batch counts, and class 3 is fake.
    assert train_steps == [[0, 1, 0, 1], [0, 1]]
    assert all(not grad for training, grad, _ in trainer.detector.seen if not training)
    folder = tmp_path / "logs" / "linear_now"
    assert trainer.log_dir == folder
    assert set(trainer.writers) == {"train", "test/X", "test/Y"}
    assert np.load(folder / "test" / "X" / "features.npz")["feat"].shape == (4, 2)
    state = torch.load(folder / "ckpt_best.pth", weights_only=True)
    assert torch.equal(state["layer.weight"], trainer.detector.layer.weight)


def test_one_batch_one_class_one_video(make_trainer):
    trainer = make_trainer()
    best = trainer.train_epoch(0, loader(Points(1)), {"X": loader(Points(1))})
    close(trainer)
    assert best["X"]["auc"] is None
    assert best["avg"]["acc"] is not None
    assert (trainer.log_dir / "ckpt_best.pth").is_file()


def test_without_test_sets(make_trainer):
    trainer = make_trainer()
    assert trainer.train_epoch(0, loader(Points(4)), {}) == {}
    close(trainer)


@pytest.mark.parametrize(("metric", "best"), [("auc", 0.9), ("eer", 0.1)])
def test_the_best_epoch_is_kept_and_val_chooses_it(make_trainer, monkeypatch, metric, best):
    import trainer.trainer as module

    trainer = make_trainer(metric=metric)
    scores = iter([(0.2, 0.5), (0.3, best), (0.8, 0.5)])

    def test_epoch(epoch, loaders, phase="test"):
        if phase == "test":
            test_epoch.current = next(scores)
        value = test_epoch.current[phase == "val"]
        return {"avg": {metric: value}}

    monkeypatch.setattr(trainer, "test_epoch", test_epoch)
    trainer.val_data_loaders = {"X": None}
    states = []
    for epoch in range(3):
        result = trainer.train_epoch(epoch, loader(Points(4)), {"X": None})
        states.append(copy.deepcopy(trainer.detector.state_dict()))
    close(trainer)
    assert result == {"avg": {metric: 0.3}}
    kept = torch.load(trainer.log_dir / "ckpt_best.pth", weights_only=True)
    assert torch.equal(kept["layer.weight"], states[1]["layer.weight"])
    last = module.checkpoint.read(trainer.log_dir / "ckpt_last.pth")
    assert last["epoch"] == 2
    assert torch.equal(last["model"]["layer.weight"], states[2]["layer.weight"])


def test_schedule_steps_once_an_epoch(make_trainer):
    trainer = make_trainer(scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
    for epoch in range(3):
        trainer.train_epoch(epoch, loader(Points(8), batch=2), {})
    close(trainer)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.1 / 8


def test_resumed_equals_uninterrupted(make_trainer, tmp_path):
    def schedule(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def run(trainer, epochs):
        for epoch in epochs:
            trainer.train_epoch(epoch, loader(Points(8), shuffle=True), {"X": loader(Points(4))})
        close(trainer)
        return trainer

    torch.manual_seed(5)
    whole = make_trainer(scheduler=schedule, output_dir=str(tmp_path / "whole"))
    torch.manual_seed(5)
    run(whole, range(4))
    half = make_trainer(scheduler=schedule, output_dir=str(tmp_path / "half"))
    torch.manual_seed(5)
    run(half, range(2))
    torch.manual_seed(99)
    resumed = make_trainer(
        scheduler=schedule, output_dir=str(tmp_path / "rest"), resume=str(tmp_path / "half" / "ckpt_last.pth")
    )
    assert resumed.start_epoch == 2
    run(resumed, range(2, 4))
    assert torch.equal(whole.detector.layer.weight, resumed.detector.layer.weight)
    assert whole.best_results == resumed.best_results


def test_resume_needs_a_full_checkpoint(make_trainer, tmp_path):
    from config.errors import SettingError

    torch.save(Linear().state_dict(), tmp_path / "plain.pth")
    with pytest.raises(SettingError, match="is not a ckpt_last.pth"):
        make_trainer(resume=str(tmp_path / "plain.pth"))


def test_a_loss_that_is_not_finite_stops_the_run(make_trainer):
    from config.errors import RunFailure

    trainer = make_trainer(lr=math.inf)
    with pytest.raises(RunFailure, match="the loss is nan"):
        trainer.train_epoch(0, loader(Points(8)), {})
    close(trainer)


def test_nothing_is_saved_when_nothing_may_be(make_trainer):
    trainer = make_trainer(save_ckpt=False)
    trainer.train_epoch(0, loader(Points(4)), {"X": loader(Points(4))})
    close(trainer)
    assert not list(trainer.log_dir.rglob("*.pth"))


def test_swa_is_refused(make_trainer):
    from config.errors import SettingError
    from trainer import Trainer

    plain = make_trainer()
    with pytest.raises(SettingError, match="averaging"):
        Trainer(plain.config, plain.detector, plain.optimizer, None, plain.logger, swa_model=plain.detector)


class TestDevice:
    def test_cpu_and_auto(self):
        from trainer.device import choose_device

        assert choose_device("cpu").type == "cpu"
        assert choose_device("auto").type in ("cpu", "cuda", "mps")

    @pytest.mark.parametrize("name", ["gpu", "cuda:99"])
    def test_refused(self, name):
        from config.errors import SettingError
        from trainer.device import choose_device

        with pytest.raises(SettingError, match="device is"):
            choose_device(name)


class TestWeights:
    def test_prefix_and_full_checkpoint(self, tmp_path):
        from trainer.checkpoint import load_weights

        source = torch.nn.Linear(2, 2)
        states = [
            {f"module.{name}": value for name, value in source.state_dict().items()},
            {"model": source.state_dict(), "epoch": 3},
        ]
        for state in states:
            torch.save(state, tmp_path / "w.pth")
            target = torch.nn.Linear(2, 2)
            load_weights(target, tmp_path / "w.pth")
            assert torch.equal(target.weight, source.weight)

    def test_every_difference_is_listed(self, tmp_path):
        from config.errors import SettingError
        from trainer.checkpoint import load_weights

        torch.save({"weight": torch.zeros(3, 2), "scale": torch.zeros(1)}, tmp_path / "w.pth")
        with pytest.raises(SettingError) as caught:
            load_weights(torch.nn.Linear(2, 2), tmp_path / "w.pth")
        text = str(caught.value)
        assert "1 missing: bias; 1 unexpected: scale; 1 of another shape: weight" in text

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
    def test_no_checkpoint(self, tmp_path, content):
        from config.errors import SettingError
        from trainer.checkpoint import load_weights

        path = tmp_path / "w.pth"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingError) as caught:
            load_weights(torch.nn.Linear(2, 2), path)
        assert "\n" not in str(caught.value)

    def test_a_failed_write_leaves_the_old_file(self, tmp_path):
        from trainer.checkpoint import write_atomically

        path = tmp_path / "x"
        path.write_text("old")

        def fail(temporary):
            temporary.write_text("half")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, fail)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
