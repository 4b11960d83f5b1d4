"""A host's own detectors: found by their files, refused by what they need, built by their one module."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from toyhost import EMBEDDED

from effort_finetune.core.errors import UserError
from effort_finetune.host import Host, open_host
from effort_finetune.host.detector_files import check_needs, detector_module, detector_yaml
from effort_finetune.host.own_detectors import build_detector

CONFIG = {
    "model_name": "meso4",
    "backbone_name": "meso4",
    "backbone_config": {"num_classes": 2, "inc": 3},
    "resolution": 32,
    "loss_func": "cross_entropy",
}

#: Reads a file as hosts' detectors do: filters it by a comprehension, indexes what is left, and loads that.
PRETRAINED = """
import torch
from detectors import DETECTOR, AbstractDetector
from torch import nn

class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 1, 1)

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.fc = nn.Conv2d(3, 4, 3), Inner(), nn.Linear(4, 2)
    def forward(self, x):
        return self.fc(self.first(x).flatten(1))

@DETECTOR.register_module(module_name='loads')
class Loads(nn.Module):
    def __init__(self, config):
        super().__init__()
        torch.autograd.set_detect_anomaly(True)
        body = Body().cuda()
        state = torch.load(config['pretrained'])
        for name, value in state.items():
            if 'first' in name:
                state[name] = value.unsqueeze(-1).squeeze(-1)
        if config.get('takes_out'):
            state.pop('fc.bias')
        state = {k: v for k, v in state.items() if 'fc' not in k}
        first = state['first.weight'].data
        body.load_state_dict(state, True)
        self.body = body
        self.wide = nn.Conv2d(12, 4, 3, bias=False)
        for i in range(4):
            self.wide.weight.data[:, 3 * i:3 * i + 3] = first / 4
    def forward(self, data_dict, inference=False):
        return {'cls': self.body(data_dict['image'].mean((2, 3), keepdim=True).expand(-1, -1, 3, 3))}
"""


def source(name: str, body: str, start: str = "") -> str:
    return f"""
{start}
from metrics.registry import DETECTOR
from torch import nn
@DETECTOR.register_module(module_name={name!r})
class Some(nn.Module):
    def __init__(self, config):
        super().__init__()
        {body}
    def features(self, data_dict):
        return data_dict['image'], data_dict['idct']
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    shutil.copytree(
        EMBEDDED / "training",
        tmp_path / "training",
        ignore=shutil.ignore_patterns("__pycache__", "logs"),
    )
    return open_host(tmp_path)


def add(host: Host, name: str, text: str) -> None:
    (host.root / "training/detectors" / f"{name}_detector.py").write_text(text)


def test_names_modules_and_files_are_read_from_the_text(host: Host) -> None:
    add(host, "broken", "@DETECTOR.register_module('broken'\n")
    assert detector_module(host, "meso4") == "detectors.meso4_detector"
    assert detector_yaml(host, "meso4") == host.root / "training/config/detector/meso4.yaml"
    assert detector_yaml(host, "xception") is None
    with pytest.raises(UserError, match="did you mean 'meso4'"):
        detector_module(host, "mezo4")


def test_one_module_is_imported_and_nothing_else_changes(host: Host) -> None:
    add(host, "other", "raise RuntimeError('a detector nobody asked for')")
    before, path = set(sys.modules), list(sys.path)
    model = build_detector(host, "meso4", CONFIG, pretrained=False)
    batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1])}
    assert model.eval()(batch, inference=True)["prob"].shape == (2,)
    assert model.get_losses(batch, model(batch))["overall"].requires_grad
    assert sys.path == path
    assert "detectors" not in set(sys.modules) - before
    assert not torch.is_anomaly_enabled()


def test_pretrained_files_are_stood_in_for_where_weights_come_after(host: Host) -> None:
    add(host, "loads", PRETRAINED)
    config = {"pretrained": "./training/pretrained/nobody_has_it.pth"}
    for takes_out in (False, True):
        model = build_detector(host, "loads", {**config, "takes_out": takes_out}, pretrained=False)
        assert torch.equal(model.wide.weight[:, 3:6] * 4, model.body.first.weight)
        assert not torch.is_anomaly_enabled()
    with pytest.raises(UserError, match=r"needs a file that is not there; got .*nobody_has_it\.pth"):
        build_detector(host, "loads", config, pretrained=True)
    (host.root / "training/pretrained").mkdir(exist_ok=True)
    torch.save(model.body.state_dict(), host.root / "training/pretrained/nobody_has_it.pth")
    with pytest.raises(UserError, match="cannot be built; got RuntimeError"):  # its own code drops a key
        build_detector(host, "loads", config, pretrained=True)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a", source("a", "pass", "import a_package_nobody_has"), "pip install a_package_nobody_has"),
        ("b", source("b", "import a_package_nobody_has"), "pip install a_package_nobody_has"),
        ("c", source("c", "raise ValueError('two\\nlines')"), "cannot be built; got ValueError: two lines"),
        ("d", source("d", "open('/no/such/file')"), "needs a file that is not there; got /no/such/file"),
        ("e", source("e", "config['no_such_key']"), "cannot be built; got KeyError: 'no_such_key'"),
    ],
)
def test_what_a_detector_lacks_is_one_line(host: Host, name: str, text: str, words: str) -> None:
    add(host, name, text)
    with pytest.raises(UserError) as caught:
        build_detector(host, name, {}, pretrained=False)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_detector_is_built_from_the_hosts_root_wherever_the_command_was_typed(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts name files from their root; what is not there may lie where the command was typed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (host.root / "template.txt").write_text("from the root")
    torch.save({}, elsewhere / "typed.pth")
    body = "self.read = open('template.txt').read(); import torch; self.loaded = torch.load('typed.pth')"
    add(host, "some", source("some", body))
    built = build_detector(host, "some", {}, pretrained=True)
    assert (built.read, built.loaded) == ("from the root", {})
    assert Path.cwd() == elsewhere


def test_a_detector_that_fails_leaves_the_next_one_whole(host: Host) -> None:
    """A folder without __init__.py has a path that Python asks of a parent, and the parents are ours."""
    folder = host.root / "training/detectors/parts"
    folder.mkdir()
    (folder / "piece.py").write_text("x = 1\n")
    add(host, "fails", source("fails", "raise KeyError('clip')", "import detectors.parts.piece"))
    with pytest.raises(UserError, match=r"KeyError: 'clip'; next: name its settings file"):
        build_detector(host, "fails", {}, pretrained=False)
    assert build_detector(host, "meso4", CONFIG, pretrained=False) is not None


@pytest.mark.parametrize(
    ("config", "training", "words"),
    [
        ({"video_mode": True, "clip_size": 8}, False, "clips of 8 frames"),
        ({"dataset_type": "pair"}, True, "training samples of dataset_type 'pair'"),
        ({}, False, r"idct in each batch \(read in features\)"),
    ],
)
def test_what_frames_cannot_give_is_refused(host: Host, config: dict, training: bool, words: str) -> None:
    add(host, "some", source("some", "raise RuntimeError('never imported')", "raise RuntimeError"))
    with pytest.raises(UserError, match=words):
        check_needs(host, "some", config, training=training)
    add(host, "clips", source("clips", "self.frames = config['clip_size']"))
    with pytest.raises(UserError, match=r"needs clips \(config\['clip_size'\], read in __init__\)"):
        check_needs(host, "clips", {}, training=False)
    check_needs(host, "meso4", {**CONFIG, "dataset_type": None}, training=True)


@pytest.mark.parametrize(
    ("body", "start", "words"),
    [
        (
            "b, t, c, h, w = data_dict['image'].shape",
            "",
            r"line 9 of clips_detector\.py reads images of five",
        ),
        ("x = data_dict['image'].permute(0, 2, 1, 3, 4)", "", "line 9 of clips_detector"),
        ("b, c, h, w = data_dict['image'].shape", "", None),
        (
            "self.backbone = TimesformerModel.from_pretrained(config['pretrained'])",
            "from transformers import TimesformerModel",
            "transformers' TimesformerModel, which takes several frames",
        ),
        (
            "from transformers import VideoMAEModel as V; self.backbone = V.from_pretrained('x/y')",
            "",
            "VideoMAEModel",
        ),
        ("self.backbone = M()", "from transformers import CLIPVisionModel as M, TimesformerModel", None),
        ("self.backbone = M()", "from transformers import ANameNobodyHas as M", None),
    ],
)
def test_clips_are_known_without_a_settings_file(
    host: Host, body: str, start: str, words: str | None
) -> None:
    add(host, "clips", source("clips", body, start).replace("data_dict['idct']", "0"))
    if words is None:
        check_needs(host, "clips", {}, training=False)
        return
    with pytest.raises(UserError, match=words):
        check_needs(host, "clips", {}, training=False)
