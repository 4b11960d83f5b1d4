"""A run of our detector that a host's ``train.py`` or ``test.py`` was asked for: the same job as everywhere.

Nothing of the host's own imports runs, so no order of imports, no missing package and no line of the script
can stop it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effort_finetune.config import Settings, resolve
from effort_finetune.core.errors import UserError
from effort_finetune.core.launch import ALONE_WITH_DDP, is_first, note_local_rank, read_launch
from effort_finetune.data.missing_inputs import TRAINING, refuse_missing
from effort_finetune.guest.asked import PLUGIN_NAME, Asked
from effort_finetune.guest.flags import Given, take_apart
from effort_finetune.host import Host, enclosing_host, open_host


def run(asked: Asked) -> int:
    """Fine-tunes or evaluates as the script was asked to; returns 0.

    Raises:
        UserError: If the run cannot start; nothing has been written then.
        RunFailure: If it could not finish; what there is was saved.
    """
    given = take_apart(asked.argv)
    _note_processes(given)
    host = open_host(enclosing_host(asked.script))  # the script's own tree, whatever the environment says
    _leave_script(host)
    if given.host.get("no_save_ckpt"):
        given.settings["save_ckpt"] = False
    if asked.mode == "test" and given.host.get("weights_path"):
        given.settings["pretrained_weights"] = given.host["weights_path"]
    settings = resolve(
        flags=given.settings,
        yaml_path=asked.yaml_path,
        host_defaults=host.default_settings(asked.mode),
        host_root=host.root,
    )
    _refuse(settings)
    which = TRAINING if asked.mode == "train" else ("test_dataset",)
    for note in refuse_missing(host, settings, which=which, weights=[settings.pretrained_weights]):
        if is_first():
            print(note)
    command = (f"python {shlex.quote(os.path.relpath(asked.script))}", *asked.argv)
    results = (_train if asked.mode == "train" else _test)(settings, host, given, command)
    output = given.host.get("output_json")
    if output and is_first():
        Path(str(output)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(results, str(output))
        print(f"===> Results written to {output}")
    return 0


def _train(settings: Settings, host: Host, given: Given, command: tuple[str, ...]) -> Path:
    from effort_finetune.train.finetuning import finetune

    if given.host.get("task_target") and settings.output_dir is None:
        folder = _own_folder(settings, host, str(given.host["task_target"]))
        settings = settings.changed(output_dir=str(folder))
    outcome = finetune(settings, host, command=command)
    if not is_first():
        return outcome.results_path
    for line in _lines(outcome.results_path):
        print(line)
    kept = outcome.published_path or outcome.best_path
    print(f"===> Training Done! {kept if kept.is_file() else outcome.run_dir}")
    return outcome.results_path


def _test(settings: Settings, host: Host, given: Given, command: tuple[str, ...]) -> Path:
    from effort_finetune.evaluate.evaluation import evaluate

    folder = settings.output_dir or _own_folder(settings, host, "test")
    results = evaluate(settings, host, weights=None, output_dir=folder, command=command)
    if is_first():
        for line in _lines(results):
            print(line)
        print(f"===> Test Done! {results}")
    return results


def _lines(results: Path) -> Iterator[str]:
    """The metrics of each dataset as hosts print them at their end: its name, then one metric a line."""
    document: Mapping[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    for name, block in document.get("datasets", {}).items():
        yield f"dataset: {name}"
        for prefix, level in (("", "frame"), ("video_", "video")):
            for metric, value in (block.get(level) or {}).items():
                if isinstance(value, float) or value is None:
                    yield f"{prefix}{metric}: {value}"


def _own_folder(settings: Settings, host: Host, what: str) -> Path:
    """A folder of the run's own, named as hosts name theirs."""
    name = "_".join([PLUGIN_NAME, what, time.strftime("%Y-%m-%d-%H-%M-%S")])
    return host.resolve(settings.log_dir) / name


def _note_processes(given: Given) -> None:
    rank = given.host.get("local_rank")
    if isinstance(rank, str):
        if not rank.isdigit():
            raise UserError("--local_rank", got=repr(rank), expected="the number that a launcher sets")
        note_local_rank(rank)
    launch = read_launch()
    if given.host.get("ddp") and launch.size == 1:
        print(ALONE_WITH_DDP, file=sys.stderr)


def _refuse(settings: Settings) -> None:
    if settings.trainer not in (PLUGIN_NAME, None):
        raise UserError(
            "trainer", got=repr(settings.trainer), expected=f"{PLUGIN_NAME}, or null for the host's own"
        )
    if settings.host_only.get("dry_run"):
        raise UserError(
            "dry_run",
            got="true",
            expected="false",
            next_step="effort-finetune doctor checks a run without starting it",
        )


def _leave_script(host: Host) -> None:
    """Makes the process one that the script no longer takes part in.

    Workers that are spawned (the rule on a Mac and from Python 3.14 on) would import the script again, and
    with ``training/`` on the path a host's ``utils`` or ``config`` hides packages of those names.
    """
    main = sys.modules["__main__"]
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    training = (host.root / "training").resolve()
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != training]
