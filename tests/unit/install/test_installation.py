"""Install, uninstall and status on a host in miniature."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.host import open_host
from effort_finetune.install import installation as installing
from effort_finetune.install.installation import execute, plan_install, plan_uninstall
from effort_finetune.install.record import MANIFEST, status


def install(root, **options):
    execute(plan_install(open_host(root)), **options)


def uninstall(root):
    plan = plan_uninstall(open_host(root))
    execute(plan)
    return plan


def test_install_and_uninstall_leave_no_trace(host_root, snapshot):
    before = snapshot(host_root)
    install(host_root, verify=True)
    assert {state.state for state in status(open_host(host_root))} == {"ok"}
    assert (host_root / "training/finetune.py").is_file()
    uninstall(host_root)
    assert snapshot(host_root) == before
    assert {state.state for state in status(open_host(host_root))} == {"not installed"}


def test_planning_writes_nothing(host_root, snapshot):
    before = snapshot(host_root)
    assert b"+++ b/training/train.py" in plan_install(open_host(host_root)).diff()
    assert snapshot(host_root) == before


def test_installing_twice_changes_nothing(host_root, snapshot):
    install(host_root)
    before = snapshot(host_root)
    assert plan_install(open_host(host_root)).changes == ()
    assert snapshot(host_root) == before


def test_uninstalling_what_is_not_installed_changes_nothing(host_root):
    assert plan_uninstall(open_host(host_root)).changes == ()


def test_edits_beside_our_blocks_survive_both_ways(host_root):
    train = host_root / "training/train.py"
    train.write_bytes(b"# mine, from before\r\n" + train.read_bytes())
    install(host_root)
    train.write_bytes(train.read_bytes() + b"# mine, from after\r\n")
    expected = train.read_bytes()
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/train.py"] == "edited beside"
    assert all(change.path == MANIFEST for change in plan_install(open_host(host_root)).changes)
    plan = uninstall(host_root)
    assert any("training/train.py has edits of yours" in note for note in plan.notes)
    text = train.read_bytes()
    assert text.startswith(b"# mine, from before\r\n")
    assert text.endswith(b"# mine, from after\r\n")
    assert b"effort" not in text
    assert len(text) < len(expected)


def test_a_block_that_was_copied_or_moved_is_an_edit(host_root, snapshot):
    before = snapshot(host_root)
    install(host_root)
    test = host_root / "training/test.py"
    block, end = b"# >>> effort-finetune: flags", b"# <<< effort-finetune\n"
    copied = test.read_bytes()[test.read_bytes().index(block) :].partition(end)[0] + end
    test.write_bytes(copied + test.read_bytes())
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/test.py"] == "edited beside"
    uninstall(host_root)
    assert snapshot(host_root) == before


@pytest.mark.parametrize("plan", [plan_install, plan_uninstall])
def test_an_edited_block_is_reported_not_overwritten(host_root, snapshot, plan):
    install(host_root)
    test = host_root / "training/test.py"
    test.write_bytes(test.read_bytes().replace(b"TestRun(__file__)", b"TestRun('other')"))
    before = snapshot(host_root)
    with pytest.raises(UserError, match=r"training/test\.py: the block 'enter'"):
        plan(open_host(host_root))
    assert snapshot(host_root) == before
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/test.py"] == "edited"


def test_a_deleted_block_does_not_hinder_uninstalling(host_root, snapshot):
    before = snapshot(host_root)
    install(host_root)
    original = host_root / "training/detectors/__init__.py"
    original.write_bytes(b"from metrics.registry import DETECTOR\r\n")
    uninstall(host_root)
    assert snapshot(host_root) == before


def test_an_edited_overlay_file_is_kept(host_root):
    install(host_root)
    settings = host_root / "training/config/detector/effort_finetune.yaml"
    settings.write_text("nEpochs: 3\n")
    plan = plan_install(open_host(host_root))
    assert plan.notes == ("kept training/config/detector/effort_finetune.yaml: you have edited it",)
    execute(plan)
    assert settings.read_text() == "nEpochs: 3\n"
    assert uninstall(host_root).notes[0].startswith("kept training/config/detector/effort_finetune.yaml")
    assert settings.read_text() == "nEpochs: 3\n"
    assert not (host_root / MANIFEST).exists()


def test_a_file_of_the_same_name_is_not_overwritten(host_root, snapshot):
    (host_root / "training/finetune.py").write_text("print('mine')\n")
    before = snapshot(host_root)
    with pytest.raises(UserError, match=r"training/finetune\.py is in the host already"):
        plan_install(open_host(host_root))
    assert snapshot(host_root) == before


def test_every_file_that_does_not_fit_is_named_at_once(host_root, snapshot):
    for name in ("train.py", "test.py"):
        path = host_root / "training" / name
        path.write_bytes(path.read_bytes().replace(b"parser.parse_args()", b"parse(parser)"))
    before = snapshot(host_root)
    with pytest.raises(UserErrors) as caught:
        plan_install(open_host(host_root))
    assert len(caught.value.errors) == 2
    assert snapshot(host_root) == before


def test_a_result_that_would_not_parse_is_refused(host_root):
    path = host_root / "training/train.py"
    path.write_bytes(path.read_bytes().replace(b"args = parser.parse_args()", b"args = parser.parse_args("))
    with pytest.raises(UserError):
        plan_install(open_host(host_root))


def test_a_host_that_does_not_import_afterwards_is_put_back(host_root, snapshot):
    metrics = host_root / "training/metrics/utils.py"
    metrics.write_bytes(
        metrics.read_bytes().replace(b"import torch", b"import torch\nfrom no_such_package import x")
    )
    before = snapshot(host_root)
    with pytest.raises(UserError, match="does not import with the plugin in it"):
        install(host_root, verify=True)
    assert snapshot(host_root) == before


def test_an_older_installation_is_brought_up_to_date_and_still_undone(host_root, snapshot, monkeypatch):
    before = snapshot(host_root)
    patches = installing.load_patches()
    with monkeypatch.context() as older:
        fewer = [patch for patch in patches if patch.file.endswith("train.py")]
        older.setattr(installing, "load_patches", lambda: [_without_last(patch) for patch in fewer])
        install(host_root)
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/train.py"] == "outdated"
    install(host_root)
    assert {state.state for state in status(open_host(host_root))} == {"ok"}
    uninstall(host_root)
    assert snapshot(host_root) == before


def _without_last(patch):
    return type(patch)(patch.file, patch.insertions[:-1])


def test_blocks_without_a_record_are_recognised(host_root, snapshot):
    before = snapshot(host_root)
    install(host_root)
    (host_root / MANIFEST).unlink()
    for name in ("finetune.py", "evaluate_finetune.py", "detectors/effort_finetune_detector.py"):
        (host_root / "training" / name).unlink()
    (host_root / "training/config/detector/effort_finetune.yaml").unlink()
    uninstall(host_root)
    assert snapshot(host_root) == before


@pytest.mark.parametrize(
    "record", [[], {"patched": []}, {"patched": {"training/train.py": {"before": ""}}, "created": {}}]
)
def test_a_damaged_record_is_a_user_error(host_root, record):
    install(host_root)
    (host_root / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(UserError, match="is damaged"):
        status(open_host(host_root))


def test_a_patched_host_still_runs_where_the_plugin_is_not_installed(host_root):
    (host_root / "training/metrics/utils.py").write_text(
        "def get_test_metrics(y_pred, y_true, img_names):\n    pass\n"
    )
    for package in ("metrics", "dataset", "trainer"):
        (host_root / f"training/{package}/__init__.py").write_text("")
    install(host_root)
    program = (
        "import sys; sys.path.insert(0, 'training'); import detectors, metrics.utils, train; print('runs')"
    )
    done = subprocess.run(  # -E, -S: without PYTHONPATH and site-packages, so without the plugin
        [sys.executable, "-E", "-S", "-c", program],
        cwd=host_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "runs\n", done.stderr


def test_after_a_lost_record_installing_and_uninstalling_leave_no_trace(host_root, snapshot):
    before = snapshot(host_root)
    install(host_root)
    (host_root / MANIFEST).unlink()
    install(host_root)
    uninstall(host_root)
    assert snapshot(host_root) == before


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("nowhere.py")])
def test_what_is_no_file_is_not_written_through(host_root, make):
    make(host_root / "training/finetune.py")
    with pytest.raises(UserError, match=r"training/finetune\.py is in the host already"):
        plan_install(open_host(host_root))


@pytest.mark.parametrize("edited", [False, True])
def test_what_a_newer_version_no_longer_has_is_taken_out(host_root, snapshot, monkeypatch, edited):
    before = snapshot(host_root)
    install(host_root)
    helper = host_root / "training/evaluate_finetune.py"
    if edited:
        helper.write_text("# mine\n")
    patches, overlay = installing.load_patches(), resources.overlay()
    monkeypatch.setattr(
        installing, "load_patches", lambda: [p for p in patches if p.file != "training/test.py"]
    )
    monkeypatch.setattr(resources, "overlay", lambda: [o for o in overlay if "evaluate" not in o[1]])
    install(host_root)
    assert b"effort-finetune" not in (host_root / "training/test.py").read_bytes()
    assert helper.exists() == edited
    uninstall(host_root)
    if edited:
        helper.unlink()
    assert snapshot(host_root) == before
