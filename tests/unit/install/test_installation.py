"""Install, uninstall and status on a host in miniature."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host import open_host
from effort_finetune.install import installation as installing
from effort_finetune.install import record as records
from effort_finetune.install.installation import plan_install, plan_uninstall
from effort_finetune.install.record import MANIFEST, read_record, sha256_bytes, status
from effort_finetune.install.writing import execute


def install(root, **options):
    plan = plan_install(open_host(root), **options)
    execute(plan)
    return plan


def uninstall(root):
    plan = plan_uninstall(open_host(root))
    execute(plan)
    return plan


def test_install_and_uninstall_leave_no_trace(host_root, snapshot):
    before = snapshot(host_root)
    install(host_root)
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
    block, end = b"# >>> effort-finetune", b"# <<< effort-finetune\n"
    copied = test.read_bytes()[test.read_bytes().index(block) :].partition(end)[0] + end
    test.write_bytes(copied + test.read_bytes())
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/test.py"] == "edited beside"
    uninstall(host_root)
    assert snapshot(host_root) == before


def test_an_edited_block_is_kept_by_install_and_not_taken_out_by_uninstall(host_root, snapshot):
    install(host_root)
    test = host_root / "training/test.py"
    test.write_bytes(test.read_bytes().replace(b"take_over(__file__", b"take_over('other'"))
    before = snapshot(host_root)
    notes = plan_install(open_host(host_root)).notes
    assert any("training/test.py is left as it is: the block of effort-finetune" in note for note in notes)
    with pytest.raises(UserError, match=r"training/test\.py: the block of effort-finetune in line 1"):
        plan_uninstall(open_host(host_root))
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


def test_a_file_of_the_users_that_bears_our_name_stays_his(host_root, snapshot):
    mine = {"finetune.py": "print('mine')\n", "config/detector/effort_finetune.yaml": "nEpochs: 7\n"}
    for name, text in mine.items():
        (host_root / "training" / name).parent.mkdir(parents=True, exist_ok=True)
        (host_root / "training" / name).write_text(text)
    before = snapshot(host_root)
    notes = install(host_root).notes
    assert {(host_root / "training" / name).read_text() for name in mine} == set(mine.values())
    assert any("effort-finetune finetune (or install --replace)" in note for note in notes)
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/finetune.py"] == "not ours"
    assert states["training/train.py"] == "ok"
    uninstall(host_root)
    assert snapshot(host_root) == before


def test_replace_swaps_the_two_scripts_and_uninstall_puts_them_back(host_root, snapshot):
    mine = {name: f"print('my {name}')" for name in ("finetune.py", "evaluate_finetune.py")}
    for name, text in mine.items():
        (host_root / "training" / name).write_text(text)
    (host_root / "training/finetune.py").chmod(0o755)
    settings = host_root / "training/config/detector/effort_finetune.yaml"
    settings.parent.mkdir()
    settings.write_text("nEpochs: 7\n")
    before = snapshot(host_root)
    install(host_root)
    install(host_root, replace=True)
    assert settings.read_text() == "nEpochs: 7\n"
    for name in mine:
        assert "effort_finetune" in (host_root / "training" / name).read_text()
    assert plan_install(open_host(host_root)).changes == (), "the record knows that they are replaced"
    uninstall(host_root)
    assert snapshot(host_root) == before


def test_a_replaced_script_that_was_edited_since_loses_neither_version(host_root):
    script = host_root / "training/finetune.py"
    script.write_text("first\n")
    install(host_root, replace=True)
    script.write_text("second\n")
    notes = uninstall(host_root).notes
    assert script.read_text() == "second\n"
    assert (host_root / "training/finetune.py.before-effort-finetune").read_text() == "first\n"
    assert any("your earlier one" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("train.py", "def f(:\n", "does not parse"),
        ("metrics/utils.py", "def other():\n    pass\n", "defines no get_test_metrics"),
        ("test.py", None, "is not there"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said(host_root, snapshot, name, text, why):
    path = host_root / "training" / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    before = snapshot(host_root)
    notes = install(host_root).notes
    (note,) = (each for each in notes if each.startswith(f"training/{name} "))
    assert why in note
    assert "lost: " in note
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states.pop(f"training/{name}") == "does not fit"
    assert set(states.values()) == {"ok"}
    assert why in read_record(host_root).left[f"training/{name}"]
    uninstall(host_root)
    assert snapshot(host_root) == before


def test_scripts_of_any_kind_take_the_block(host_root, snapshot):
    """No line of a host is an anchor: sorted imports, a parser in main, no imports at all."""
    for name in ("train.py", "test.py"):
        (host_root / "training" / name).write_bytes(b"if __name__ == '__main__':\r\n    print(1)")
    before = snapshot(host_root)
    assert install(host_root).notes == ()
    assert (host_root / "training/train.py").read_bytes().startswith(b"# >>> effort-finetune\r\n")
    uninstall(host_root)
    assert snapshot(host_root) == before


@pytest.mark.parametrize("path", ["../victim.txt", "/victim.txt", "training/../../victim.txt", "README.md"])
@pytest.mark.parametrize("part", ["created", "patched", "replaced"])
def test_a_record_of_somebody_elses_reaches_no_other_file(host_root, tmp_path, path, part):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious\n")
    (host_root / "README.md").write_text("precious\n")
    entry = {
        "created": sha256_bytes(b"precious\n"),
        "patched": {"before": "", "after": "", "blocks": {}},
        "replaced": "cHJlY2lvdXM=",
    }[part]
    record = {"version": "9", "patched": {}, "created": {}, part: {path: entry}}
    (host_root / MANIFEST).write_text(json.dumps(record))
    for plan in (plan_install, plan_uninstall):
        with pytest.raises(UserError, match="is damaged; got .* is no file of an installation"):
            plan(open_host(host_root))
    assert victim.read_text() == (host_root / "README.md").read_text() == "precious\n"


def test_a_link_out_of_the_checkout_is_not_written_through(host_root, tmp_path, snapshot):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("train.py", "finetune.py"):
        (elsewhere / name).write_text("x = 1\n")
        (host_root / "training" / name).unlink(missing_ok=True)
        (host_root / "training" / name).symlink_to(elsewhere / name)
    record = {
        "version": "9",
        "patched": {},
        "created": {"training/finetune.py": sha256_bytes(b"x = 1\n")},
    }
    (host_root / MANIFEST).write_text(json.dumps(record))
    before = snapshot(elsewhere)
    install(host_root)
    uninstall(host_root)
    assert snapshot(elsewhere) == before


def test_folders_that_install_made_go_with_it(host_root):
    assert not (host_root / "training/config/detector").exists()
    install(host_root)
    uninstall(host_root)
    assert not (host_root / "training/config/detector").exists()
    (host_root / "training/config/detector").mkdir()
    install(host_root)
    uninstall(host_root)
    assert (host_root / "training/config/detector").is_dir(), "it was there before"


def test_an_installation_of_version_1_is_brought_up_to_date_and_still_undone(host_root, snapshot):
    before = snapshot(host_root)
    train = host_root / "training/train.py"
    original = train.read_bytes()
    block = (
        b"# >>> effort-finetune: enter\r\n",
        b"effort_finetune_run = None\r\n",
        b"# <<< effort-finetune\r\n",
    )
    first, rest = original.split(b"\r\n", 1)
    train.write_bytes(first + b"\r\n" + b"".join(block) + rest)
    script = host_root / "training/finetune.py"
    script.write_text("of version 1\n")
    entry = {
        "before": sha256_bytes(original),
        "after": sha256_bytes(train.read_bytes()),
        "blocks": {"enter": ["effort_finetune_run = None"]},
    }
    record = {
        "version": "0.0.1",
        "host": {"kind": "deepfakebench", "commit": None},
        "patched": {"training/train.py": entry},
        "created": {"training/finetune.py": sha256_bytes(script.read_bytes())},
    }
    (host_root / MANIFEST).write_text(json.dumps(record))
    states = {state.path: state.state for state in status(open_host(host_root))}
    assert states["training/train.py"] == states["training/finetune.py"] == "outdated"
    install(host_root)
    assert {state.state for state in status(open_host(host_root))} == {"ok"}
    uninstall(host_root)
    assert snapshot(host_root) == before


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
    "record",
    [
        [],
        {"patched": []},
        {"patched": {"training/train.py": {"before": ""}}, "created": {}},
        {"version": "9", "patched": {}, "created": {}, "replaced": {"training/finetune.py": "not base 64"}},
        {"version": "9", "patched": {}, "created": {}, "folders": [".."]},
    ],
)
def test_a_damaged_record_is_a_user_error(host_root, record):
    install(host_root)
    (host_root / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(UserError, match="is damaged"):
        status(open_host(host_root))


def test_a_patched_host_still_runs_where_the_plugin_is_not_installed(host_root):
    for script in ("train.py", "test.py"):
        (host_root / "training" / script).write_text("import argparse\n")
    (host_root / "training/metrics/utils.py").write_text(
        "def get_test_metrics(y_pred, y_true, img_names):\n    pass\n"
    )
    for package in ("metrics", "dataset", "trainer"):
        (host_root / f"training/{package}/__init__.py").write_text("")
    install(host_root)
    program = (
        "import sys; sys.path.insert(0, 'training'); import detectors, metrics.utils, train, test; print(1)"
    )
    done = subprocess.run(  # -E, -S: without PYTHONPATH and site-packages, so without the plugin
        [sys.executable, "-E", "-S", "-c", program],
        cwd=host_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr


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
    notes = install(host_root, replace=True).notes
    assert any("no plain file of the checkout" in note for note in notes)
    assert not (host_root / "training/nowhere.py").exists()


@pytest.mark.parametrize("edited", [False, True])
def test_what_a_newer_version_no_longer_has_is_taken_out(host_root, snapshot, monkeypatch, edited):
    before = snapshot(host_root)
    install(host_root)
    helper = host_root / "training/evaluate_finetune.py"
    if edited:
        helper.write_text("# mine\n")
    patches, overlay = records.shipped_patches(), resources.overlay()
    monkeypatch.setattr(
        installing, "shipped_patches", lambda: [p for p in patches if p.file != "training/test.py"]
    )
    monkeypatch.setattr(resources, "overlay", lambda: [o for o in overlay if "evaluate" not in o[1]])
    install(host_root)
    assert b"effort-finetune" not in (host_root / "training/test.py").read_bytes()
    assert helper.exists() == edited
    uninstall(host_root)
    if edited:
        helper.unlink()
    assert snapshot(host_root) == before
