"""What the lines inserted into a host's ``train.py``, ``test.py`` and ``get_test_metrics`` call.

The inserted lines are few and never change a run that uses neither the detector nor the trainer
``effort_finetune``: every method here first asks whether the run is one of ours. In a run of ours the
settings come from the plugin's resolver, the frames from its data room, and a user error is one line.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch

from effort_finetune.config import Settings, resolve
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import write_json
from effort_finetune.guest import flags as command_line
from effort_finetune.guest import light_packages as light
from effort_finetune.guest.host_results import json_document, take_part, with_precision_recall_f1
from effort_finetune.guest.registry import register_plugin
from effort_finetune.host.host import PLUGIN_NAME, Host, open_host
from effort_finetune.host.locate import enclosing_host

if TYPE_CHECKING:
    from effort_finetune.guest.loaders import HostLoader

__all__ = ["TestRun", "TrainRun", "with_precision_recall_f1"]

#: Shown by ``--help``; every other key of the settings works as a flag, too.
_SHOWN = {"train": ("pretrained_weights", "resume", "output_dir", "trainer", "nEpochs"), "test": ()}

#: What a host's ``test.py`` measures with, whatever the settings of the training were.
_HOSTS_TEST = {"threshold": 0.5, "precision": "float32"}

#: What a host's own trainer never reads.
_OUR_TRAINERS = ("resume", "output_dir", "accumulation_steps", "clip_grad_norm", "early_stopping")

#: What a host's ``main`` reads from every configuration and our YAML need not repeat.
_HOST_DEFAULTS = {
    "SWA": False,
    "cudnn": False,
    "dry_run": False,
    "save_avg": True,
    "with_landmark": False,
    "with_mask": False,
}


class _Run:
    """A run of a host's script.

    Args:
        script: ``__file__`` of ``train.py`` or ``test.py``.
        argv: The command line; ``sys.argv[1:]`` by default.
    """

    mode: Literal["train", "test"]

    def __init__(self, script: str, argv: Sequence[str] | None = None) -> None:
        self._script = Path(os.path.abspath(script))
        self._argv = list(sys.argv[1:] if argv is None else argv)
        self._yaml = command_line.detector_yaml(self._argv)
        self._own_detector = self._yaml.get("model_name") == PLUGIN_NAME
        self._own_trainer = self._trainer_name() == PLUGIN_NAME
        self._settings: Settings | None = None
        if self._own_detector or self._own_trainer:
            take_part()
            sys.excepthook = _one_line_for_user_errors
            light.without_cuda()
        if self._own_detector or command_line.wants_help(self._argv):  # help ends before anything is used
            light.install_packages(self._host, self._script)
        elif self._own_trainer:
            light.mend_fork(self._host, self._script)

    @functools.cached_property
    def _host(self) -> Host:
        return open_host(enclosing_host(self._script))

    @property
    def settings(self) -> Settings:
        """The run's settings, once :meth:`configure` has resolved them."""
        assert self._settings is not None, "configure() comes first"
        return self._settings

    def owns(self, config: Mapping[str, Any]) -> bool:
        """Tells whether the run's detector is ours."""
        return bool(config["model_name"] == PLUGIN_NAME)

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Adds our flags to the host's parser, before it parses."""
        command_line.add_settings_flags(parser, self._argv, _SHOWN[self.mode])

    def _trainer_name(self) -> str | None:
        """The trainer the run asks for: by flag, else in the YAML, else ours for our detector."""
        flag = command_line.flag_value(self._argv, "trainer")
        if flag is not None:
            return None if flag.lower() == "null" else flag
        return self._yaml.get("trainer", PLUGIN_NAME if self._own_detector else None)

    def _resolve(self, config: dict[str, Any], args: argparse.Namespace, flags: Mapping[str, Any]) -> None:
        """Puts what the plugin's resolver says in place of what the host merged; its own keys stay."""
        self._settings = resolve(
            flags={key: value for key, value in flags.items() if value is not None},
            yaml_path=args.detector_path,
            host_defaults=self._host.default_settings(self.mode),
            host_root=self._host.root,
        )
        merged = {**_HOST_DEFAULTS, **config, **self._settings.to_dict()}
        config.update(merged, cuda=torch.cuda.is_available())

    def _refuse(self, flags: Mapping[str, Any]) -> None:
        """A run of another detector may not carry flags that it would not heed."""
        if flags:
            sys.excepthook = _one_line_for_user_errors
            raise UserError(
                f"--{next(iter(flags))} is for runs of effort_finetune",
                got=f"model_name {self._yaml.get('model_name')!r}",
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
            register_plugin(self._host)
            trainers = self._host.registry("TRAINER")
            if name not in trainers.data:
                raise UserError("trainer", got=repr(name), expected=f"one of {sorted(trainers.data)} or null")
            trainer = trainers[name](*args, **kwargs)
            if self._own_detector and self.settings.select_on == "val":
                names = self.settings.val_dataset or self.settings.train_dataset
                trainer.val_data_loaders = self._loaders("val", names)
            return trainer

        return make

    def configure(self, config: dict[str, Any], args: argparse.Namespace) -> None:
        """Settles the configuration, in place, once ``train.py`` has merged its files and flags."""
        flags = command_line.given_settings(args)
        if self._own_detector:
            datasets = {"train_dataset": args.train_dataset, "test_dataset": args.test_dataset}
            self._resolve(config, args, {**datasets, **flags})
            if self.settings.select_on == "last":
                raise UserError(
                    "select_on",
                    got="last",
                    expected="val or test (upstream's way) in train.py",
                    next_step="ckpt_last.pth is written in any case",
                )
            if not self._own_trainer:
                self._refuse_what_is_our_trainers()
            elif self.settings.resume is not None:
                from effort_finetune.weights.run_state import state_file

                # It holds every weight; what the run began with may be gone, and plain CLIP may not be there.
                config["pretrained_weights"] = str(state_file(self.settings.resume))
        elif self._own_trainer:
            command_line.set_dotted(config, {**flags, "trainer": PLUGIN_NAME})
        else:
            self._refuse(flags)
            return
        # `import detectors` may have left it on, which halves the speed of training.
        torch.autograd.set_detect_anomaly(False)

    def _refuse_what_is_our_trainers(self) -> None:
        for key in _OUR_TRAINERS:
            value = getattr(self.settings, key)
            if value != getattr(Settings(), key):
                raise UserError(
                    key,
                    got=value,
                    expected="no value with the host's own trainer, which does not read it",
                    next_step="drop --trainer null (in the YAML: trainer: effort_finetune)",
                )

    def training_loader(self) -> HostLoader:
        """Returns the training frames of our detector's run."""
        from effort_finetune.guest.loaders import training_loader

        return training_loader(self._host, self.settings, allowed=self.settings.max_missing_rate)

    def testing_loaders(self) -> Mapping[str, HostLoader]:
        """Returns the test frames of our detector's run, by dataset."""
        return self._loaders("test", self.settings.test_dataset)

    def _loaders(self, split: str, names: Sequence[str]) -> Mapping[str, HostLoader]:
        from effort_finetune.guest.loaders import testing_loaders

        # The host's own trainer pairs scores with frames by position: none may be missing.
        allowed = self.settings.max_missing_rate if self._own_trainer else 0.0
        return testing_loaders(self._host, self.settings, split, names, allowed=allowed)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Returns the optimiser over our detector's trainable parameters."""
        from effort_finetune.train.optim import build_optimizer

        return build_optimizer(model, self.settings)

    def is_over(self, config: Mapping[str, Any], epoch: int) -> bool:
        """Tells whether an epoch should not start: hosts run ``nEpochs`` + 1 of them, our runs do not."""
        ours = self._own_detector or self._own_trainer
        return ours and epoch >= config["start_epoch"] + config["nEpochs"]


class TestRun(_Run):
    """A run of a host's ``test.py``."""

    __test__ = False  # not a test case, whatever its name says
    mode: Literal["train", "test"] = "test"

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Adds ``--output_json`` and our flags to the host's parser, before it parses."""
        # Only where it is used, for the same reason as all others: abbreviations.
        asked = command_line.flag_value(self._argv, "output_json") is not None
        if asked or command_line.wants_help(self._argv):
            parser.add_argument("--output_json", help="write the metrics of every dataset to this file")
        super().add_flags(parser)

    def configure(self, config: dict[str, Any], args: argparse.Namespace) -> None:
        """Settles the configuration, in place, once ``test.py`` has merged its files and flags."""
        self._output: str | None = getattr(args, "output_json", None)
        self._weights: str | None = args.weights_path
        self._sha256: str | None = None  # of our detector's file, hashed as it is read
        self._protocols: dict[str, Any] = {}
        if self._output is not None:
            take_part()
        flags = command_line.given_settings(args)
        if self._own_detector:
            given = {"test_dataset": args.test_dataset, "pretrained_weights": args.weights_path}
            for key, value in _HOSTS_TEST.items():
                if flags.get(key, value) not in (value, "auto"):
                    raise UserError(
                        f"--{key}",
                        got=flags[key],
                        expected=f"{value}, as the host's test.py has it",
                        next_step="python training/evaluate_finetune.py measures with any other",
                    )
            self._resolve(config, args, {**given, **flags, **_HOSTS_TEST})
        else:
            self._refuse(flags)

    def testing_loaders(self) -> Mapping[str, HostLoader]:
        """Returns the test frames of our detector's run, by dataset."""
        from effort_finetune.guest.loaders import testing_loaders

        # The host's loop pairs scores with frames by position: none may be missing.
        loaders = testing_loaders(self._host, self.settings, "test", self.settings.test_dataset, allowed=0.0)
        self._protocols = {name: loader.protocol for name, loader in loaders.items()}
        return loaders

    def test(
        self, model: Any, loaders: Mapping[str, Any], test_epoch: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Runs the host's ``test_epoch`` on our detector, which has loaded its weights already."""
        report = model.load_report.to_dict()
        self._sha256 = report["sha256"]
        print(f"===> Load checkpoint done! layout {report['layout']}, sha256 {report['sha256']}")
        try:
            metrics = test_epoch(model, loaders)
        except ValueError as error:
            # The host's get_test_metrics takes a folder that holds both labels for one video.
            if "All-NaN" not in str(error):
                raise
            raise RunFailure(
                f"the host's get_test_metrics failed ({error}), as it does where a real and a fake video "
                "share a folder's name; next: python training/evaluate_finetune.py keeps them apart"
            ) from error
        self.write_json(metrics)
        print("===> Test Done!")
        return metrics

    def write_json(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes what the host measured, when ``--output_json`` asked for it."""
        if self._output is None:
            return
        document = json_document(
            metrics,
            host=self._host.provenance(),
            model_name=self._yaml.get("model_name"),
            weights=self._weights,
            sha256=self._sha256,
            protocols=self._protocols,
            settings=None if self._settings is None else self._settings.to_dict(),
        )
        write_json(self._output, document)
        print(f"===> Metrics written to {self._output}")


def _one_line_for_user_errors(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """An exception hook for runs of ours: a user error is one line and exit code 2, no traceback."""
    if not isinstance(error, (UserError, RunFailure)):
        sys.__excepthook__(kind, error, traceback)
        return
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A hook has no gentler way to choose the exit code.
    os._exit(error.exit_code)
