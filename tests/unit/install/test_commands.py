"""The commands install, uninstall, status and doctor, as a user calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from effort_finetune.cli import doctor_checks
from effort_finetune.cli.main import main
from effort_finetune.host import open_host
from effort_finetune.host import recognise as kinds
from effort_finetune.install import known_problems as traps
from effort_finetune.install.installation import plan_install
from effort_finetune.install.record import MANIFEST
from effort_finetune.install.writing import execute, only_one


@pytest.fixture
def installed(host_root):
    execute(plan_install(open_host(host_root)))
    return host_root


def test_install_says_what_it_sees_and_does(host_root, capsys):
    assert main(["install", str(host_root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"host at {host_root} (not under git")
    assert "  patched   training/train.py" in lines
    assert "  added     training/finetune.py" in lines
    assert lines[-1] == f"recorded in {MANIFEST}; undo with: effort-finetune uninstall {host_root}"


def test_dry_run_writes_nothing(host_root, snapshot, capsys):
    before = snapshot(host_root)
    assert main(["install", str(host_root), "--dry-run"]) == 0
    assert snapshot(host_root) == before
    out = capsys.readouterr().out
    assert "+    take_over(__file__, __name__)" in out
    assert out.splitlines()[-1] == "dry run: 8 files would change, nothing was written"


def test_uninstall_restores_and_says_so(host_root, snapshot, capsys):
    before = snapshot(host_root)
    assert main(["install", str(host_root)]) == 0
    assert main(["uninstall", str(host_root), "--dry-run"]) == 0
    assert snapshot(host_root) != before
    assert main(["uninstall", str(host_root)]) == 0
    assert snapshot(host_root) == before
    assert "  restored  training/train.py" in capsys.readouterr().out
    assert main(["uninstall", str(host_root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "not installed; nothing changed"


@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
def test_what_is_no_host_is_refused_in_one_line(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert "is no DeepfakeBench v2" in err[0]


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_two_at_once_are_one_too_many(command, host_root, snapshot):
    with only_one(host_root):
        before = snapshot(host_root)
        done = subprocess.run(
            [sys.executable, "-m", "effort_finetune", command, str(host_root)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "wait for it" in done.stderr
        assert snapshot(host_root) == before
    assert not list(host_root.glob(".effort*"))


def test_a_host_one_folder_down_is_found(host_root, monkeypatch, capsys):
    monkeypatch.delenv("DEEPFAKEBENCH_ROOT", raising=False)
    monkeypatch.chdir(host_root.parent)
    assert main(["install"]) == 0
    assert f"host at {host_root}" in capsys.readouterr().out
    assert main(["status", str(host_root.parent)]) == 0
    assert main(["uninstall", str(host_root.parent)]) == 0
    shutil.copytree(host_root, host_root.parent / "second")
    assert main(["install"]) == 2
    assert "got host, second; expected one" in capsys.readouterr().err


def test_nowhere_is_not_the_embedded_host(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DEEPFAKEBENCH_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    for command in ("install", "uninstall", "status"):
        assert main([command]) == 2
        assert "no DeepfakeBench found" in capsys.readouterr().err


def test_a_plain_install_needs_no_torch(host_root):
    program = (
        "import sys; from effort_finetune.cli.main import main\n"
        "for command in ('install', 'status', 'uninstall'): assert main([command, sys.argv[1]]) == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(host_root)], check=True, capture_output=True)


def test_status_asks_for_attention_only_when_it_is_needed(installed, capsys):
    assert main(["status", str(installed)]) == 0
    (installed / "training/config/detector/effort_finetune.yaml").write_text("nEpochs: 2\n")
    assert main(["status", str(installed)]) == 0
    (installed / "training/finetune.py").unlink()
    assert main(["status", str(installed)]) == 1
    assert "missing        training/finetune.py" in capsys.readouterr().out


def test_status_does_not_send_an_edited_block_to_install_which_leaves_it(installed, capsys):
    script = installed / "training/test.py"
    script.write_bytes(script.read_bytes().replace(b"take_over(__file__", b"take_over('other'"))
    assert main(["status", str(installed)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: undo the edit")
    assert main(["install", str(installed)]) == 0
    assert "training/test.py is left as it is" in capsys.readouterr().out
    assert main(["uninstall", str(installed)]) == 2
    assert "next: undo the edit" in capsys.readouterr().err


def test_status_and_doctor_tell_an_installation_without_a_record(installed, capsys):
    (installed / MANIFEST).unlink()
    assert main(["status", str(installed)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1] == f"installed, but its record {MANIFEST} is lost"
    assert out[-1] == f"next: effort-finetune install {installed}"
    assert "its record" in _errors(_doctor(installed, capsys))["host"]["what"]
    assert main(["install", str(installed)]) == 0
    assert main(["status", str(installed)]) == 0


def test_a_file_of_ones_own_with_an_overlays_name_is_no_installation(host_root, capsys):
    (host_root / "training/finetune.py").write_text("print('mine')\n")
    assert main(["status", str(host_root)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "not installed"
    assert "  not ours       training/finetune.py" in out


def _doctor(root, capsys, *arguments):
    code = main(["doctor", "--host", str(root), "--json", *arguments])
    document = json.loads(capsys.readouterr().out)
    assert code == (0 if document["ok"] else 1)
    return document["findings"]


def _errors(findings):
    return {finding["area"]: finding for finding in findings if finding["level"] == "error"}


def _add_dataset(root, label="UADFV_Real"):
    from effort_finetune.data.index import Video
    from effort_finetune.data.write_dataset import write_index, write_lmdb

    path = "UADFV\\real\\frames\\0000\\000.png"
    video = Video("UADFV", label, label, None, "0000", "test", (path,))
    write_index(root / "preprocessing/dataset_json", "UADFV", [video])
    write_lmdb(root / "datasets/lmdb/UADFV_lmdb", [(path, b"png")])


def test_doctor_finds_a_host_in_order(installed, capsys):
    _add_dataset(installed)
    (installed / "training/config/test_config.yaml").write_text("label_dict: {UADFV_Real: 0}\n")
    findings = _doctor(installed, capsys, "--test_dataset", "UADFV")
    assert _errors(findings) == {}
    assert {"machine", "host", "settings", "device", "weights", "data", "disk"} <= {
        f["area"] for f in findings
    }
    assert all(finding["fix"] for finding in findings if finding["level"] != "ok")
    assert main(["doctor", "--host", str(installed), "--test_dataset", "UADFV"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 errors")


@pytest.mark.parametrize(
    ("area", "text", "damage"),
    [
        ("data", "labels outside label_dict: Nobody", lambda root: _add_dataset(root, "Nobody")),
        ("data", "UADFV: ", lambda root: shutil.rmtree(root / "datasets")),
        ("data", "UADFV", lambda root: (root / "preprocessing/dataset_json/UADFV.json").write_text("{")),
        ("host", "not as installed", lambda root: (root / "training/finetune.py").unlink()),
        ("settings", "nEpoch", lambda root: _setting(root, "nEpoch: 1")),
        ("device", "device", lambda root: _setting(root, "device: cuda:7")),
        ("weights", "nowhere.pth", lambda root: _setting(root, "pretrained_weights: nowhere.pth")),
    ],
)
def test_doctor_names_what_is_wrong_and_the_cure(installed, capsys, area, text, damage):
    _add_dataset(installed)
    (installed / "training/config/test_config.yaml").write_text("label_dict: {UADFV_Real: 0}\n")
    damage(installed)
    errors = _errors(_doctor(installed, capsys, "--test_dataset", "UADFV"))
    assert text in errors[area]["what"]
    assert errors[area]["fix"]


def _setting(root, line):
    (root / "training/config/detector/effort_finetune.yaml").write_text(
        f"model_name: effort_finetune\n{line}\n"
    )


@pytest.mark.parametrize(("embedded", "fix"), [(True, "make demo"), (False, "prepare builds yours")])
def test_doctor_before_there_is_any_data_is_an_error_with_its_cure(installed, capsys, embedded, fix):
    if embedded:
        (installed / kinds.EMBEDDED_MARK).write_text("")
    found = _errors(_doctor(installed, capsys))["data"]
    assert found["what"] == f"no dataset; got no JSON in {installed}/preprocessing/dataset_json"
    assert fix in found["fix"]
    assert ("demo" in found["fix"]) == embedded
    main(["doctor", "--host", str(installed)])
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 error, ")


def test_doctor_notes_a_dataset_class_that_does_not_import_and_our_runs_do_not_use(installed, capsys):
    (installed / "training/dataset/albu.py").write_text("raise RuntimeError")
    _add_dataset(installed)
    (installed / "training/config/test_config.yaml").write_text("label_dict: {UADFV_Real: 0}\n")
    found = _doctor(installed, capsys, "--test_dataset", "UADFV")
    assert not _errors(found)
    (note,) = (finding for finding in found if "RuntimeError" in finding["what"])
    assert note["level"] == "note"


def test_doctor_without_a_host_says_so_and_stops(tmp_path, capsys):
    errors = _errors(_doctor(tmp_path, capsys))
    assert list(errors) == ["host"]


def test_doctor_looks_at_the_disk_that_a_training_run_writes_to(installed, capsys):
    (installed / "training/config/train_config.yaml").write_text("log_dir: ./logs/training\n")
    (disk,) = (finding for finding in _doctor(installed, capsys) if finding["area"] == "disk")
    assert disk["what"].endswith(f"free for {installed}/logs/training")


def test_doctor_names_the_setting_of_a_folder_that_is_not_there(installed, capsys):
    for configured in ("train", "test"):  # as the authors' fork has it
        path = installed / f"training/config/{configured}_config.yaml"
        path.write_text("dataset_json_folder: /elsewhere/dataset_json\n")
    assert "dataset_json_folder" in _errors(_doctor(installed, capsys))["data"]["fix"]


def test_doctor_warns_of_a_full_disk(host_root, monkeypatch, capsys):
    from effort_finetune.config import Settings

    monkeypatch.setattr(doctor_checks, "_ROOM_NEEDED", 2**80)
    (finding,) = doctor_checks.disk(open_host(host_root), Settings())
    assert finding.level == "warning"
    assert "--output_dir" in finding.fix


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [
        ("albumentations", "2.0.8", "JPEG"),
        ("lmdb", "1.7.1", "workers crash"),
        ("lmdb", "3.0", "open one database twice"),
    ],
)
def test_traps_follow_the_versions_installed(host_root, monkeypatch, package, version, words):
    versions = {"albumentations": "1.3.1", "lmdb": "1.6.2", "numpy": "1.26.4", package: version}

    def lookup(name):
        if name not in versions:
            raise traps.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(traps.metadata, "version", lookup)
    warnings = [
        finding.what for finding in traps.find_traps(open_host(host_root)) if finding.level == "warning"
    ]
    assert len(warnings) == 1
    assert words in warnings[0]


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"numpy": "2.4.6", "imgaug": "0.4.0"}, "imgaug cannot be imported under numpy >= 2"),
        ({"numpy": "2.4.6"}, None),
        ({"timm": "0.6.12"}, "timm <= 0.6.12"),
        ({"timm": "0.6.13"}, None),
        ({"albumentations": "2.0.8"}, "under albumentations >= 2"),
        ({"lmdb": "2.2.0"}, "lmdb >= 2 refuses"),
        ({"lmdb": "1.7.5"}, "with lmdb >= 1.7"),
    ],
)
def test_versions_that_stop_hosts_are_told_where_they_are_installed(host_root, monkeypatch, versions, words):
    fine = {"numpy": "1.26.4", "albumentations": "1.3.1", "lmdb": "1.6.2"}

    def version(package: str) -> str:
        if package in (here := fine | versions):
            return here[package]
        raise traps.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(traps.metadata, "version", version)
    warnings = [
        finding.what for finding in traps.find_traps(open_host(host_root)) if finding.level == "warning"
    ]
    assert len(warnings) == (words is not None)
    assert words is None or warnings[0].startswith(words)


def test_the_embedded_host_has_no_traps_and_needs_no_install(capsys):
    from effort_finetune.core import resources

    embedded = resources.embedded_host()
    assert traps.find_traps(open_host(embedded)) == []
    for command in ("install", "uninstall", "status"):
        assert main([command, str(embedded)]) == 0
        assert "built in" in capsys.readouterr().out
