"""Settings: which file wins, what a flag may set, and where a relative path starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml


@pytest.fixture
def load(detector_yaml):
    from config.loader import load_config, parse_overrides

    def load(*words, mode="train", **changes):
        return load_config(str(detector_yaml(**changes)), mode, parse_overrides(words))

    return load


@pytest.fixture
def refused(load):
    from config.errors import SettingError

    def refused(*words, **changes):
        with pytest.raises(SettingError) as caught:
            load(*words, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


def test_bench_over_detector_and_flags_over_both(load, training):
    config = load("--nEpochs", "7", "--lmdb", "false", lmdb=True, nEpochs=3, lmdb_dir="/other", rec_iter=9)
    assert (config["nEpochs"], config["lmdb"], config["rec_iter"]) == (7, False, 9)
    assert config["lmdb_dir"] == str(training.parent / "datasets/lmdb")
    assert config["mode"] == "train"
    assert load(mode="test")["mode"] == "test"


def test_label_tables_are_joined(load):
    labels = load(label_dict={"Mine_Real": 0, "UADFV_Fake": 9})["label_dict"]
    assert labels["Mine_Real"] == 0
    assert labels["UADFV_Fake"] == 1


@pytest.mark.parametrize("mode", ["train", "test"])
def test_shipped_files(training, mode):
    content = yaml.safe_load((training / "config" / f"{mode}_config.yaml").read_text())
    assert content["mode"] == mode
    assert content["lmdb"] is True
    assert content["label_dict"]["FF-real"] == content["label_dict"]["DemoC_Real"] == 0
    assert set(content["label_dict"].values()) == {0, 1}


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["3"], 3),
        (["1e-4"], 1e-4),
        (["0.5"], 0.5),
        (["-5", "5"], [-5, 5]),
        (["[-5, 5]"], [-5, 5]),
        (["true"], True),
        (["null"], None),
        (["A", "B"], ["A", "B"]),
        (["DemoA"], "DemoA"),
        (["nan"], "nan"),
    ],
)
def test_values(words, value):
    from config.loader import parse_value

    parsed = parse_value(words)
    assert parsed == value
    assert type(parsed) is type(value)


def test_flags():
    from config.loader import parse_overrides

    assert parse_overrides(["--a.b", "1", "--c=x", "--d", "A", "B"]) == {"a.b": 1, "c": "x", "d": ["A", "B"]}


def test_an_optimizer_setting_reaches_every_place_it_stands_in(load):
    optimizer = load("--optimizer.lr", "0.5", "--weight_decay", "0.25")["optimizer"]
    assert {optimizer[kind]["lr"] for kind in ("adam", "adamw", "sgd")} == {0.5}
    assert {optimizer[kind]["weight_decay"] for kind in ("adam", "adamw", "sgd")} == {0.25}
    beside = {"type": "adam", "lr": 0.1, "adam": {"lr": 0.1}}
    assert load("--optimizer.adam.lr", "0.5", optimizer=beside)["optimizer"] == {
        "type": "adam",
        "lr": 0.5,
        "adam": {"lr": 0.5},
    }


def test_paths(load, training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").touch()
    config = load(
        "--pretrained_weights", "weights.pth", "--output_dir", "out", "--rgb_dir", "training/config"
    )
    assert config["pretrained_weights"] == str(tmp_path / "weights.pth")
    assert config["output_dir"] == str(tmp_path / "out")
    # Not here, so seen from the bench.
    assert config["rgb_dir"] == str(training.parent / "training/config")
    assert config["log_dir"] == str(training.parent / "training/logs")
    assert load(pretrained_weights="w.pth")["pretrained_weights"] == str(training.parent / "w.pth")
    assert load("--clip_path", "openai/clip")["clip_path"] == "openai/clip"
    assert load(mode="test")["clip_path"] == str(training.parent / "training/pretrained/demo_clip")


def test_unknown_keys_suggest_near_ones(refused):
    assert "did you mean --nEpochs" in refused("--nEpoch", "3")
    assert "--optimizer.lrr is not a setting" in refused("--optimizer.lrr", "3")
    assert "--nEpochs.x is not a setting" in refused("--nEpochs.x", "3")
    assert "--data_aug.flip is not a setting" in refused("--data_aug.flip", "3")
    assert "did you mean --data_aug.flip_prob" in refused("--data_aug.flip", "3")


def test_malformed_flags(refused):
    assert refused("stray") == "argument 'stray' belongs to no flag"
    assert refused("--nEpochs") == "flag --nEpochs has no value"
    assert "nEpochs is 'many'" in refused("--nEpochs", "many")
    assert "train_batchSize is 0" in refused("--train_batchSize", "0")
    assert "lacks resolution" in refused(resolution=None)
    assert "names no model_name" in refused(model_name=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "is not YAML"), ("- a", "holds a list"), ("", "holds a NoneType"), (None, "cannot be read")],
)
def test_settings_files_that_are_none(tmp_path, content, message):
    from config.errors import SettingError
    from config.loader import load_config

    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match=message):
        load_config(str(path), "train", {})


class TestOptimizer:
    @pytest.fixture
    def model(self):
        model = torch.nn.Linear(2, 2)
        model.bias.requires_grad = False
        return model

    def test_over_trainable_parameters(self, model):
        from optimizor import choose_optimizer

        options = {"type": "adamw", "adamw": {"lr": 0.1, "beta1": 0.5, "beta2": 0.6, "eps": 1e-3}}
        optimizer = choose_optimizer(model, {"optimizer": options})
        assert type(optimizer) is torch.optim.AdamW
        assert optimizer.param_groups[0]["params"] == [model.weight]
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
        assert optimizer.param_groups[0]["lr"] == 0.1

    def test_beside_the_type_wins(self, model):
        from optimizor import choose_optimizer

        options = {"type": "sgd", "lr": 0.3, "sgd": {"lr": 0.1, "momentum": 0.9}}
        group = choose_optimizer(model, {"optimizer": options}).param_groups[0]
        assert (group["lr"], group["momentum"]) == (0.3, 0.9)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"type": "adamx"}, "expected one of: adam"), ({"type": "sgd"}, "lr is not set")],
    )
    def test_refused(self, model, options, message):
        from config.errors import SettingError
        from optimizor import choose_optimizer

        with pytest.raises(SettingError, match=message):
            choose_optimizer(model, {"optimizer": options})
        model.weight.requires_grad = False
        with pytest.raises(SettingError, match="nothing can be trained"):
            choose_optimizer(model, {"optimizer": {"type": "sgd", "lr": 1.0}})

    @pytest.mark.parametrize(
        ("settings", "rates"),
        [
            ({"lr_scheduler": "step", "lr_step": 2, "lr_gamma": 0.5}, [1, 1, 0.5, 0.5, 0.25]),
            ({"lr_scheduler": "linear", "nEpochs": 4, "lr_eta_min": 0.0}, [1, 0.75, 0.5, 0.25, 0]),
            ({"lr_scheduler": "cosine", "lr_T_max": 4, "lr_eta_min": 0.0}, [1, 0.853553, 0.5, 0.146447, 0]),
        ],
    )
    def test_schedule_per_epoch(self, model, settings, rates):
        from optimizor import choose_optimizer, choose_scheduler

        optimizer = choose_optimizer(model, {"optimizer": {"type": "sgd", "lr": 1.0}})
        scheduler = choose_scheduler(settings, optimizer)
        seen = []
        for _ in rates:
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert seen == pytest.approx(rates, abs=1e-6)

    def test_no_or_unknown_schedule(self):
        from config.errors import SettingError
        from optimizor import choose_scheduler

        assert choose_scheduler({"lr_scheduler": None}, None) is None
        with pytest.raises(SettingError, match="lr_scheduler is 'cos'"):
            choose_scheduler({"lr_scheduler": "cos"}, None)


def test_logger_does_not_double_lines(tmp_path: Path):
    from logger import RankFilter, create_logger

    path = tmp_path / "deep" / "training.log"
    create_logger(path).info("one")
    logger = create_logger(path)
    logger.info("two")
    logger.addFilter(RankFilter(rank=1))
    logger.info("another process")
    lines = path.read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["one", "two"]
