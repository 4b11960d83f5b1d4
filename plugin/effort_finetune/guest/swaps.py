"""Runs of a host's ``train.py`` of which half is ours.

*Our detector with the host's own trainer* (``trainer: null``): the host's argument parser, loaders and
trainer run. *A host's detector with our trainer* (``trainer: effort_finetune``): the host's loaders and model
are driven by our engine, through a class with the constructor of the host's ``Trainer`` in its place.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import logging
import os
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from effort_finetune.config import resolve
from effort_finetune.config.aliases import key_of_flag
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.exit_code import exit_code
from effort_finetune.guest.asked import PLUGIN_NAME, Asked
from effort_finetune.guest.evidence import HostSource
from effort_finetune.guest.flags import take_apart
from effort_finetune.guest.host_script import options, trainer_calls
from effort_finetune.guest.unread_settings import refuse_with_host_detector, refuse_with_host_trainer
from effort_finetune.host import Host, enclosing_host, open_host
from effort_finetune.host.cuda_calls import make_cuda_harmless

#: What a host's ``main`` reads from every configuration and a detector's YAML need not repeat.
_HOST_DEFAULTS = {
    "SWA": False,
    "cuda": True,
    "cudnn": False,
    "dry_run": False,
    "save_avg": True,
    "start_epoch": 0,
    "task_target": None,
    "with_landmark": False,
    "with_mask": False,
}
#: What hosts' ``choose_metric`` knows.
_HOST_METRICS = ("auc", "acc", "eer", "ap")


def prepare(asked: Asked) -> int:
    """Makes the process and its command line such that the script runs as asked; returns 0.

    Raises:
        UserError: If a flag or key would have no effect, or something of the host would stop the run.
    """
    host = open_host(enclosing_host(asked.script))
    given = take_apart(asked.argv, options(asked.script))
    given.settings.pop("trainer", None)
    _refuse_what_the_host_overrides(host, given.settings)
    if asked.own_detector:
        tree = _with_host_trainer(asked, host, given.settings)
    else:
        refuse_with_host_detector(given.settings, str(asked.tree.get("model_name")), host.root)
        _check_constructor(asked.script)
        tree = {**_HOST_DEFAULTS, **asked.tree, "trainer": PLUGIN_NAME}
        _set_dotted(tree, given.settings)
    make_cuda_harmless()
    replaced = None if asked.own_detector else "trainer.trainer"
    HostSource(host.root, asked.script, replaced=replaced).check(
        {**tree, **host.default_settings("train")},
        detector=None if asked.own_detector else str(tree.get("model_name")),
    )
    if not asked.own_detector:
        _put_trainer_in_place(host)
    sys.argv[1:] = _with_yaml(given.rest, _write(tree))
    sys.excepthook = functools.partial(_one_line_for_ours, host.root)
    return 0


def prepare_worker(asked: Asked) -> None:
    """Does what a spawned worker needs, which runs the script's top level again, with the same words."""
    make_cuda_harmless()
    if not asked.own_detector:
        _put_trainer_in_place(open_host(enclosing_host(asked.script)))


def _with_host_trainer(asked: Asked, host: Host, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML of a run of our detector by the host's trainer: whole, for the host fills nothing in."""
    settings = resolve(
        flags={**flags, "trainer": None},
        yaml_path=asked.yaml_path,
        host_defaults=host.default_settings("train"),
        host_root=host.root,
    )
    refuse_with_host_trainer(settings, host.root)
    known = asked.script.read_text(encoding="utf-8", errors="replace")
    kind = settings.optimizer.type
    if f"'{kind}'" not in known and f'"{kind}"' not in known:
        raise UserError(
            "optimizer.type",
            got=kind,
            expected="one that the host's train.py knows, with its own trainer",
            next_step="--optimizer.type adam, or drop --trainer null",
        )
    metric = settings.metric_scoring.removeprefix("video_")
    metric = metric if metric in _HOST_METRICS else "auc"
    if metric != settings.metric_scoring:
        print(f"metric_scoring: {metric}; the host's own trainer knows no {settings.metric_scoring}")
    print("the host's own trainer runs nEpochs + 1 epochs and chooses on the test sets")
    return {**_HOST_DEFAULTS, **settings.to_dict(), "metric_scoring": metric, "trainer": None}


def _refuse_what_the_host_overrides(host: Host, flags: Mapping[str, Any]) -> None:
    """``train.py`` puts its own file on top of the detector's YAML, whatever the flag was."""
    theirs = {key_of_flag(key) for key in host.default_settings("train")}
    for key, value in flags.items():
        if key_of_flag(key).partition(".")[0] in theirs:
            raise UserError(
                f"--{key}",
                got=value,
                expected="no such flag here: the host's train.py puts train_config.yaml on top",
                next_step=f"set {key} in {host.root / 'training/config/train_config.yaml'}",
            )


def _check_constructor(script: Path) -> None:
    """Refuses a script whose call of ``Trainer`` our class would not take."""
    from effort_finetune.guest.trainer import EffortFinetuneTrainer

    signature = inspect.signature(EffortFinetuneTrainer)
    for line, positional, keywords in trainer_calls(script):
        try:
            signature.bind(*[None] * positional, **dict.fromkeys(keywords), host=None)
        except TypeError as error:
            raise UserError(
                f"{script.name} line {line} makes its Trainer in a way that ours does not take",
                got=error,
                expected="DeepfakeBench's own arguments",
                next_step="train with the host's own trainer: drop trainer: effort_finetune",
            ) from error


def _put_trainer_in_place(host: Host) -> None:
    """Puts our class where the script's ``from trainer.trainer import Trainer`` finds it."""
    from effort_finetune.guest.registry import TrainerFactory

    module = types.ModuleType("trainer.trainer", "The host's trainer, with effort_finetune's class.")
    module.__file__ = str(host.root / "training/trainer/trainer.py")
    module.Trainer = TrainerFactory(host)  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    # The host's file puts these on the path, and others of its modules count on it.
    sys.path += [str(host.root / "training"), str(host.root)]


def _set_dotted(config: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Sets keys in a host's nested configuration; an optimiser's values where upstream reads them."""
    for name, value in settings.items():
        path = key_of_flag(name).split(".")
        if path[0] == "optimizer" and len(path) == 2 and path[1] != "type":
            path.insert(1, config["optimizer"]["type"])
        node = config
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value


def _one_line_for_ours(
    root: Path, kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    """An exception hook: what our detector or trainer says is one line and its exit code, no traceback."""
    said = _what_ours_lacks(root, error, trace) or error
    if not isinstance(said, (UserError, RunFailure)):
        sys.__excepthook__(kind, error, trace)
        return

    def work() -> int:
        raise said

    code = exit_code(work)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a hook has no gentler way to choose the exit code


def _what_ours_lacks(root: Path, error: BaseException, trace: types.TracebackType | None) -> UserError | None:
    """A host's script asks its own detectors for more than DeepfakeBench's contract; ours keeps to that."""
    asked = re.fullmatch(r"'EffortFinetuneDetector' object has no attribute '(\w+)'", str(error))
    if not isinstance(error, AttributeError) or asked is None:
        return None
    frames = [each for each in traceback.extract_tb(trace) if Path(each.filename).is_relative_to(root)]
    place = f"{Path(frames[-1].filename).relative_to(root)} line {frames[-1].lineno}" if frames else "a file"
    return UserError(
        f"{place} of the host asks the detector for {asked[1]}, which effort_finetune does not have",
        expected="DeepfakeBench's own contract of a detector",
        next_step="leave that step out in the host's settings, or drop --trainer null",
    )


def _write(tree: Mapping[str, Any]) -> str:
    """Writes the run's own copy of the YAML, which goes with the process."""
    descriptor, name = tempfile.mkstemp(prefix="effort_finetune_", suffix=".yaml")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        yaml.safe_dump(dict(tree), stream, sort_keys=False, allow_unicode=True)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not a forked worker
            Path(name).unlink(missing_ok=True)

    atexit.register(remove)
    return name


def _with_yaml(argv: list[str], path: str) -> list[str]:
    """Returns the command line with another ``--detector_path``; the last one counts."""
    return [*argv, "--detector_path", path]
