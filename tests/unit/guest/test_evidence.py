"""Lines of a host that would fail once its script runs: files of another machine, a login never made."""

from __future__ import annotations

import ast
import sys

import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.guest import swaps
from effort_finetune.guest.absent_files import check_frame_folders, check_weights
from effort_finetune.guest.evidence import HostSource
from effort_finetune.guest.host_text import bound_names
from effort_finetune.guest.tracker_login import check_login
from effort_finetune.guest.unbound_names import first_unbound

from .conftest import THEIRS

DETECTOR = """
@DETECTOR.register_module(module_name='meso4')
class Own(nn.Module):
    def __init__(self, config):
        self.path = {path}
        {first}
        self.backbone = self.build_backbone(config)
    def build_backbone(self, config):
        path = {path}
        {second}
    def never_called(self):
        torch.load('/never/asked/for.pth')
"""


def detector(path: str, first: str = "pass", second: str = "pass") -> ast.ClassDef:
    body = ast.parse(DETECTOR.format(path=path, first=first, second=second)).body[0]
    assert isinstance(body, ast.ClassDef)
    return body


@pytest.mark.parametrize(
    ("path", "first", "second", "words"),
    [
        ("'/of/its/author/clip/'", "M.from_pretrained(self.path)", "pass", "line 6 reads /of/its"),
        ("'/of/its/author/clip'", "pass", "M.from_pretrained(path)", "line 10 reads /of/its/author/clip"),
        ("0", "pass", "torch.load('./pretrained/no.pth')", "line 10 reads ./pre.* in that line"),
        ("0", "x = torch.load(config['pretrained'])", "pass", r"/their/x.pth, which .* YAML \(pretrained\)"),
        ("0", "M.from_pretrained(config.get('clip', '../clip/L'))", "pass", "reads ../clip/L"),
        ("0", "self.config = config; M.from_pretrained(self.config['clip_path'])", "pass", r"\(clip_path\)"),
    ],
)
def test_weights_of_another_machine_are_told_before_the_detector_is_built(path, first, second, words):
    config = {"pretrained": "/their/x.pth", "clip_path": "/their/clip"}
    with pytest.raises(UserError, match=words):
        check_weights(detector(path, first, second), config, "own.py")


@pytest.mark.parametrize(
    "line",
    [
        "M.from_pretrained('openai/clip-vit-large-patch14')",  # a name on a hub
        "torch.hub.load('owner/repository', 'model')",
        "torch.load(config['there'])",
        "torch.load(config['unset'])",
        "torch.load(somewhere(config))",
        "x = torch.load('/not/there.pth') if config['pretrained'] else None",
    ],
)
def test_what_may_be_there_stops_no_detector(tmp_path, line):
    (tmp_path / "w.pth").touch()
    check_weights(detector("0", line), {"there": str(tmp_path / "w.pth"), "pretrained": False}, "own.py")


SCRIPT = """
from data import *
args = parser = None
def loaders(config):
    def load(name):
        {nested}
    if config['ddp']: sampler = Sampler(args)
    if 'dataset_type' in config and config['dataset_type'] == 'pair':
        frames = Pairs(config)
    else:
        {chosen}
    for name in config['test_dataset']:
        load(name)
def main():
    config = yaml.safe_load(args)
    config['ddp'] = args.ddp
    if args.quick: return Quick()
    {after}
def never(): Never()
if __name__ == '__main__':
    loaders(args)
    main()
yaml = None
"""


def unbound(config=None, **lines: str) -> str | None:
    tree = ast.parse(SCRIPT.format(**{"nested": "pass", "chosen": "pass", "after": "pass", **lines}))
    node = first_unbound(tree, bound_names(tree), config or {"ddp": True})
    return None if node is None else f"line {node.lineno} {node.id}"


def test_a_name_that_is_nowhere_is_told_where_it_runs_for_certain():
    assert unbound() is None
    assert unbound(nested="return Frames(name)") == "line 6 Frames"
    assert unbound(chosen="frames = Frames(config)") == "line 11 Frames"
    assert unbound({"dataset_type": "pair"}, chosen="Frames(config)") == "line 9 Pairs"
    assert unbound({"dataset_type": "blend"}, nested="Frames(name)") == "line 6 Frames"


@pytest.mark.parametrize(
    "line",
    [
        "print(__file__, len(args))",
        "[Frames() for _ in args]",
        "x = args and Frames()",
        "x = lambda: Frames()",
        "exec(args); Frames()",
        "globals().update(Frames=1); Frames()",
        "x: Frames = 1",
        "import frames as Frames; Frames()",
        "global Frames; Frames = 1",
    ],
)
def test_what_may_not_run_or_may_be_bound_stops_no_script(line):
    assert unbound(chosen=line) is None
    assert unbound(after="Frames()") is None, "after a return that may be taken"


def test_a_stars_names_are_those_of_the_hosts_file(script):
    training = script("train", THEIRS).script.parent
    (training / "dataset/__init__.py").write_text("from .more import *\n")
    (training / "dataset/more.py").write_text("class More: pass\n")
    text = "from dataset import *\nMore(more)\n"
    (training / "train.py").write_text(text)
    HostSource(training.parent, training / "train.py").check({})
    (training / "detectors/frames.py").write_text("class Frames:\n    pass\n")
    (training / "train.py").write_text(text + "Frames()\n")
    with pytest.raises(UserError) as refused:
        HostSource(training.parent, training / "train.py").check({})
    assert str(refused.value).startswith(
        "training/train.py line 3 uses Frames, which nothing in the file binds"
    )
    assert str(refused.value).endswith("from detectors.frames import Frames")
    (training / "train.py").write_text("from numpy import *\n" + text + "Frames()\n")
    HostSource(training.parent, training / "train.py").check({})


def dataset(line: str) -> ast.ClassDef:
    body = ast.parse(f"class Frames:\n  def __getitem__(self, index):\n    {line}\n").body[0]
    assert isinstance(body, ast.ClassDef)
    return body


def test_a_folder_before_every_frame_is_told_before_the_run(tmp_path):
    joined = dataset("base = os.path.abspath('/home/somebody/data/')")
    with pytest.raises(UserError, match=r"f\.py line 3 looks for frames in /home/somebody/data/.*your own"):
        check_frame_folders(joined, lmdb=False, place="f.py")
    with pytest.raises(UserError, match="with lmdb: true frames go by the names of the index"):
        check_frame_folders(joined, lmdb=True, place="f.py")
    check_frame_folders(dataset(f"p = os.path.join('{tmp_path}/', name)"), lmdb=False, place="f.py")
    check_frame_folders(dataset("p = os.path.join('./datasets/rgb', name)"), lmdb=False, place="f.py")


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


INIT = "def main():\n  if {test}:\n    wandb.init(project='p'{mode})\n"


@pytest.mark.parametrize(
    ("test", "mode", "config", "words"),
    [
        ("True", "", {}, "x.py line 3 starts a run .* WANDB_MODE=offline, or wandb login"),
        ("rank() == 0", "", {}, "line 3"),
        ("config['ddp'] == False", "", {"ddp": False}, "line 3"),
        ("self.config.get('wandb', {}).get('enabled', True) and rank() == 0", "", {}, "line 3"),
        (
            "True",
            ", mode=config['mode']",
            {"mode": "online"},
            r"set config\['mode'\] to offline in .*ain_config\.yaml",
        ),
    ],
)
def test_a_run_that_needs_a_login_is_told_before(nobody, test, mode, config, words):
    tree = ast.parse(INIT.replace("{test}", test).replace("{mode}", mode))
    with pytest.raises(UserError, match=words):
        check_login(tree, config, "x.py")


@pytest.mark.parametrize(
    ("test", "mode", "config"),
    [
        ("False", "", {}),
        ("config['ddp'] != False", "", {"ddp": False}),
        ("self.config.get('wandb', {}).get('enabled', True) and rank()", "", {"wandb": {"enabled": False}}),
        ("not config['use']", "", {"use": True}),
        ("True", ", mode='disabled'", {}),
        ("True", ", mode=config.get('mode', 'offline')", {}),
    ],
)
def test_a_run_that_needs_none_goes_on(nobody, test, mode, config):
    check_login(ast.parse(INIT.replace("{test}", test).replace("{mode}", mode)), config, "x.py")


def test_whoever_has_logged_in_or_works_offline_goes_on(nobody, monkeypatch):
    tree = ast.parse(INIT.format(test="True", mode=""))
    for name, value in {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "disabled"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            check_login(tree, {}, "x.py")
    (nobody / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    check_login(tree, {}, "x.py")
    (nobody / "netrc").unlink()
    (nobody / "wandb").mkdir()
    (nobody / "wandb/settings").write_text("[default]\nmode = offline\n")
    check_login(tree, {}, "x.py")
    (nobody / "wandb/settings").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdin, "isatty", lambda: True)
        check_login(tree, {}, "x.py")  # it asks
    with pytest.raises(UserError, match="no key and no login"):
        check_login(tree, {}, "x.py")


def test_a_run_asks_for_all_of_it(script, nobody, monkeypatch):
    """From the script's imports and the two YAML files down to the line."""
    monkeypatch.setattr(swaps, "make_cuda_harmless", lambda: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    asked = script("train", {**THEIRS, "pretrained": "/their/x.pth"}, "--trainer", "effort_finetune")
    training = asked.script.parent
    own = training / "detectors/own_detector.py"
    own.write_text(DETECTOR.format(path="0", first="torch.load(config['pretrained'])", second="pass"))
    with pytest.raises(UserError, match=r"training/detectors/own_detector\.py line 6 reads /their/x\.pth"):
        swaps.prepare(asked)
    own.unlink()
    frames = training / "dataset/abstract_dataset.py"
    text = frames.read_text()
    frames.write_text(
        text + "\n\nclass Theirs:\n    def load_rgb(self): pass\n"
        "    def collect_img_and_label_for_one_dataset(self): pass\n"
    )
    with asked.script.open("a") as stream:
        stream.write("import json as wandb\ndef main():\n    wandb.init()\n")
    with pytest.raises(UserError, match=r"training/train\.py line \d+ starts a run of Weights & Biases"):
        swaps.prepare(asked)


def test_a_dataset_class_of_another_name_is_looked_at_too(tmp_path):
    training = tmp_path / "training"
    (training / "dataset").mkdir(parents=True)
    (training / "train.py").touch()
    (training / "dataset/faces.py").write_text(
        "class Faces:\n    def load_rgb(self, path): pass\n"
        "    def collect_img_and_label_for_one_dataset(self, name): pass\n"
        "    def __getitem__(self, index):\n        return open('/of/somebody/faces/a.png')\n"
    )
    with pytest.raises(UserError, match=r"training/dataset/faces\.py line 5 looks for frames in"):
        HostSource(tmp_path, training / "train.py").check({})
