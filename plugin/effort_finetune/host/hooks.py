"""What the lines inserted into a host's ``train.py``, ``test.py`` and ``get_test_metrics`` call.

The inserted lines are few and never change a run that uses neither the detector nor the trainer
``effort_finetune``: every method here first asks whether the run is one of ours. A host is a script that
runs at import, so user errors are turned into one line and exit code 2 here.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
import yaml

from effort_finetune.config import Settings, resolve
from effort_finetune.config.coerce import from_flag
from effort_finetune.config.resolve import known_keys
from effort_finetune.errors import EXIT_RUN_FAILURE, EXIT_USER_ERROR, RunFailure, UserError
from effort_finetune.files import sha256_file, write_json
from effort_finetune.host import light
from effort_finetune.host.host import PLUGIN_NAME, Host, open_host

#: Named in ``--help``; every other key of the settings is a flag too, but only when it is used, so that
#: no abbreviation a user of another detector may have typed becomes ambiguous.
_SHOWN = ("pretrained_weights", "resume", "output_dir", "trainer")

#: What a host's ``main`` reads from every configuration and our YAML need not repeat.
_HOST_DEFAULTS = {
    "SWA": False,
    "cudnn": False,
    "dry_run": False,
    "save_avg": True,
    "with_landmark": False,
    "with_mask": False,
}

MetricFunction = Callable[..., dict[str, Any]]

_taking_part = False


class _Run:
    """A run of a host's script.

    Args:
        script: ``__file__`` of ``train.py`` or ``test.py``.
        argv: The command line; ``sys.argv[1:]`` by default.
    """

    mode: Literal["train", "test"]

    def __init__(self, script: str, argv: Sequence[str] | None = None) -> None:
        self._script = Path(script).resolve()
        self._argv = list(sys.argv[1:] if argv is None else argv)
        self._detector = _detector_yaml(self._argv)
        self._own_detector = self._detector.get("model_name") == PLUGIN_NAME
        self._settings: Settings | None = None
        if self._own_detector or self._trainer_name() == PLUGIN_NAME:
            _take_part()
            light.without_cuda()
        if self._own_detector:
            with _one_line():
                light.install_packages(self._host, self._script)

    @functools.cached_property
    def _host(self) -> Host:
        return open_host(self._script.parents[1])

    def owns(self, config: Mapping[str, Any]) -> bool:
        """Tells whether the run's detector is ours."""
        return bool(config["model_name"] == PLUGIN_NAME)

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Adds our flags to the host's parser, before it parses."""
        present = {action.dest for action in parser._actions}
        group = parser.add_argument_group(
            "effort_finetune", "and every key of effort_finetune.yaml, dotted: --optimizer.lr 0.001"
        )
        asked_for_help = bool({"-h", "--help"} & set(self._argv))
        for key in sorted(_keys(self._argv) | (set(self._flags_shown()) if asked_for_help else set())):
            if key not in present:
                help = str(_metadata(key)["help"]).replace("%", "%%")
                group.add_argument(
                    f"--{key}", dest=f"effort_finetune:{key}", nargs="*", metavar="V", help=help
                )

    def _flags_shown(self) -> Sequence[str]:
        return _SHOWN

    def _trainer_name(self) -> str | None:
        """The trainer the run asks for: the flag, else the YAML's, else ours for our detector."""
        words = _flag_words(self._argv, "trainer")
        if words:
            return None if words[0].lower() in ("null", "none") else words[0]
        return self._detector.get("trainer", PLUGIN_NAME if self._own_detector else None)

    def _overrides(self, args: argparse.Namespace) -> dict[str, Any]:
        keys = known_keys()
        given: dict[str, Any] = {}
        for name, words in vars(args).items():
            key = name.removeprefix("effort_finetune:")
            if key != name and words is not None and key in keys:
                values = [from_flag(word, keys[key][0]) for word in words]
                given[key] = values[0] if len(values) == 1 else values
        return given

    def _resolve(self, config: dict[str, Any], args: argparse.Namespace, flags: Mapping[str, Any]) -> None:
        """Replaces what the host merged by what the plugin's resolver says; its own keys stay."""
        self._settings = resolve(
            flags={key: value for key, value in flags.items() if value is not None},
            yaml_path=args.detector_path,
            host_defaults=self._host.default_settings(self.mode),
            host_root=self._host.root,
        )
        for key, value in {**_HOST_DEFAULTS, **config, **self._settings.to_dict()}.items():
            config[key] = value
        config["cuda"] = torch.cuda.is_available()

    def _refuse_flags(self, flags: Mapping[str, Any]) -> None:
        if flags:
            raise UserError(
                f"--{next(iter(flags))} is for runs of effort_finetune",
                got=f"model_name {self._detector.get('model_name')!r}",
                next_step="use effort_finetune.yaml, or add --trainer effort_finetune",
            )


class TrainRun(_Run):
    """A run of a host's ``train.py``."""

    mode: Literal["train", "test"] = "train"

    def trainer(self, host_trainer: Callable[..., Any]) -> Callable[..., Any]:
        """Returns what ``train.py`` calls to make its trainer: the host's own, or the one asked for."""
        name = self._trainer_name()
        if name is None:
            return host_trainer

        def make(*args: Any, **kwargs: Any) -> Any:
            registry = self._host.registry("TRAINER")
            self._host.register_plugin()
            if name not in registry.data:
                raise UserError("trainer", got=repr(name), expected=f"one of {sorted(registry.data)} or null")
            return registry[name](*args, **kwargs)

        return make

    def configure(self, config: dict[str, Any], args: argparse.Namespace) -> None:
        """Settles the configuration, in place, once ``train.py`` has merged its files and flags."""
        with _one_line():
            flags = self._overrides(args)
            if self._own_detector:
                datasets = {"train_dataset": args.train_dataset, "test_dataset": args.test_dataset}
                self._resolve(config, args, {**datasets, **flags})
            elif self._trainer_name() == PLUGIN_NAME:
                _override(config, {"trainer": PLUGIN_NAME, **flags})
            else:
                self._refuse_flags(flags)
                return
            # `import detectors` may have left it on, which halves the speed of training.
            torch.autograd.set_detect_anomaly(False)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Returns the optimiser over our detector's trainable parameters."""
        assert self._settings is not None
        module = importlib.import_module("effort_finetune.train.optim")
        return module.build_optimizer(model, self._settings)

    def is_over(self, config: Mapping[str, Any], trainer: Any, epoch: int) -> bool:
        """Tells whether an epoch should not start: hosts run ``nEpochs`` + 1 of them, our runs do not."""
        ours = self.owns(config) or self._trainer_name() == PLUGIN_NAME
        return ours and (epoch >= config["nEpochs"] or bool(getattr(trainer, "finished", False)))


class TestRun(_Run):
    """A run of a host's ``test.py``."""

    __test__ = False  # not a test case, whatever its name says
    mode: Literal["train", "test"] = "test"

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Adds ``--output_json`` and our flags."""
        if _flag_words(self._argv, "output_json") is not None or {"-h", "--help"} & set(self._argv):
            parser.add_argument("--output_json", help="write the metrics of every dataset to this file")
        super().add_flags(parser)

    def configure(self, config: dict[str, Any], args: argparse.Namespace) -> None:
        """Settles the configuration, in place, once ``test.py`` has merged its files and flags."""
        with _one_line():
            self._output: str | None = getattr(args, "output_json", None)
            self._weights: str | None = args.weights_path
            if self._output is not None:
                _take_part()
            flags = self._overrides(args)
            if self._own_detector:
                given = {"test_dataset": args.test_dataset, "pretrained_weights": args.weights_path}
                self._resolve(config, args, {**given, **flags})
            else:
                self._refuse_flags(flags)

    def test(
        self, model: Any, loaders: Mapping[str, Any], test_epoch: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Runs the host's ``test_epoch`` on our detector, whose weights are loaded already."""
        report = getattr(model, "load_report", None)
        if report is not None:
            loaded = report.to_dict()
            print(f"===> Load checkpoint done! layout {loaded['layout']}, sha256 {loaded['sha256'][:12]}")
        metrics = test_epoch(model, loaders)
        self.write_json(metrics)
        print("===> Test Done!")
        return metrics

    def write_json(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes what the host measured, when ``--output_json`` asked for it."""
        if self._output is None:
            return
        weights = self._weights if self._weights and Path(self._weights).is_file() else None
        document = {
            "schema": "effort_finetune.host_test/1",
            "computed_by": "the host's test.py: its sampling, its video grouping",
            "host": self._host.provenance(),
            "model_name": self._detector.get("model_name"),
            "weights": weights and {"path": weights, "sha256": sha256_file(weights)},
            "datasets": {name: _scalars(values) for name, values in metrics.items()},
        }
        write_json(self._output, document)
        print(f"===> Metrics written to {self._output}")


def with_precision_recall_f1(
    get_test_metrics: Callable[..., dict[str, Any]],
) -> Callable[..., dict[str, Any]]:
    """Wraps a host's ``get_test_metrics`` so that it also returns frame precision, recall and F1.

    Threshold and labels are the host's: fake when the probability is above 0.5, a label >= 1 is fake. A
    ratio with nothing below its line is left out. Runs the plugin takes no part in get what they always
    got, because a trainer logs every value it is given.
    """

    @functools.wraps(get_test_metrics)
    def extended(*args: Any, **kwargs: Any) -> dict[str, Any]:
        result = get_test_metrics(*args, **kwargs)
        return {**result, **_precision_recall_f1(result)} if _taking_part else result

    return extended


def _precision_recall_f1(result: Mapping[str, Any]) -> dict[str, float]:
    called, fake = np.asarray(result["pred"]) > 0.5, np.asarray(result["label"]) >= 1
    hits = int(np.sum(called & fake))
    ratios = {
        "precision": (hits, int(np.sum(called))),
        "recall": (hits, int(np.sum(fake))),
        "f1": (2 * hits, int(np.sum(called)) + int(np.sum(fake))),
    }
    return {name: above / below for name, (above, below) in ratios.items() if below}


def _take_part() -> None:
    global _taking_part
    _taking_part = True
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Shows a user error of a host's script as one line, exit code 2, and others as Python does."""
    if not isinstance(error, (UserError, RunFailure)):
        sys.__excepthook__(kind, error, traceback)
        return
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # An exception hook cannot choose the exit code in any gentler way.
    os._exit(EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_RUN_FAILURE)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None


def _detector_yaml(argv: Sequence[str]) -> dict[str, Any]:
    """The detector's YAML as the host is about to read it; empty where the host will complain itself."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--detector_path")
    path = parser.parse_known_args(list(argv))[0].detector_path
    if path is None or not Path(path).is_file():
        return {}
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _flag_words(argv: Sequence[str], key: str) -> list[str] | None:
    """The words after ``--key`` (or in ``--key=word``), ``None`` when the flag is not there."""
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == f"--{key}":
            return [value] if equals else list(argv[index + 1 : index + 2])
    return None


def _keys(argv: Sequence[str]) -> set[str]:
    """The settings keys that appear as flags."""
    words = {word.partition("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    return words & {*known_keys(), *_ALIASES}


_ALIASES = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay"}


def _metadata(key: str) -> Mapping[str, Any]:
    return known_keys()[_ALIASES.get(key, key)][1]


def _override(config: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Sets dotted keys in a host's nested configuration; optimiser values in upstream's place too."""
    for key, value in flags.items():
        path = _ALIASES.get(key, key).split(".")
        if path[0] == "optimizer" and len(path) == 2 and path[1] != "type":
            path.insert(1, config["optimizer"]["type"])
        node = config
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """A host's metrics as JSON: finite numbers, ``null`` for others, arrays as their length."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        array = np.asarray(value)
        if array.ndim == 0:
            result[name] = float(array) if np.isfinite(array) else None
        elif name == "label":
            result["frames"] = {"real": int(np.sum(array == 0)), "fake": int(np.sum(array >= 1))}
    return result
