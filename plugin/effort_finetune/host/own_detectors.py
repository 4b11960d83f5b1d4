"""Builds one of a host's own detectors, by importing its one module."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effort_finetune.core.errors import UserError
from effort_finetune.host.cuda_calls import make_cuda_harmless
from effort_finetune.host.detector_files import detector_module, detector_yaml
from effort_finetune.host.missing_packages import missing_package
from effort_finetune.host.pretrained_files import pretrained_read, pretrained_replaced

if TYPE_CHECKING:
    from effort_finetune.host.host import Host


def build_detector(host: Host, name: str, config: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
    """Imports the one module of a detector and makes the detector, on the CPU.

    Args:
        host: The host.
        name: The detector.
        config: The dictionary its constructor reads.
        pretrained: Whether its pretrained files are read; else the fresh values stand in for them.

    Raises:
        UserError: A package or file is missing, or the constructor fails; one line with the reason.
    """
    module = detector_module(host, name)
    make_cuda_harmless()
    typed_in = Path.cwd()
    # Hosts are run from their root, and their files name others from there.
    with (
        contextlib.chdir(host.root),
        host.modules.scope(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        host.modules.load(module)
        host.fill_registries_when_asked()
        files = pretrained_read(typed_in) if pretrained else pretrained_replaced()
        try:
            with files:
                made = host.registry("DETECTOR")[name](dict(config))
        except UserError:
            raise
        except ModuleNotFoundError as error:
            raise missing_package(error.name or str(error), f"detector {name!r}", str(error)) from error
        except FileNotFoundError as error:
            raise UserError(
                f"the host's detector {name!r} needs a file that is not there",
                got=error if error.filename is None else host.root / error.filename,
                next_step="put it there, or name it in the detector's YAML",
            ) from error
        except Exception as error:  # a constructor of foreign code may raise anything
            own = detector_yaml(host, name)
            raise UserError(
                f"the host's detector {name!r} cannot be built",
                got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                next_step="name its settings file with --detector_config: the host has none for it"
                if own is None
                else f"check {own} and the files it names",
            ) from error
    torch.autograd.set_detect_anomaly(False)
    return made
