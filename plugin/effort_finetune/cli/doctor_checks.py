"""The single checks of ``effort-finetune doctor``; each yields findings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from effort_finetune.config import Settings
from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import UserError
from effort_finetune.core.precision import resolve_precision
from effort_finetune.data.index import SPLITS, Video, available_datasets, load_index
from effort_finetune.data.sources import open_source
from effort_finetune.host import Host
from effort_finetune.install.finding import Finding
from effort_finetune.install.record import FINE_STATES, MANIFEST, is_installed, read_record, status
from effort_finetune.weights.reader import read_checkpoint

#: A fine-tuned ViT-L/14 is 1.2 GB on disk; a run keeps last, best and published, and writes one aside.
_ROOM_NEEDED = 5 * 2**30


def machine() -> Iterator[Finding]:
    """Processors and accelerators."""
    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("Apple GPU (MPS)")
    yield Finding("machine", "ok", f"{os.cpu_count()} CPU cores, {', '.join(accelerators) or 'no GPU'}")
    for untried in _never_run():
        yield Finding(
            "machine", "note", f"never run by us: {untried}", "compare a short run with one process"
        )


def _never_run() -> Iterator[str]:
    """What of this machine nobody could try, as docs/reliability.md lists it."""
    if torch.cuda.device_count() > 1:
        yield "several GPUs of one run (torchrun, NCCL)"
    if torch.cuda.is_available():
        yield "what offload_activations saves on a GPU"
    if torch.backends.mps.is_available():
        yield "memory figures of an Apple GPU, and running out of it"


def host(host: Host) -> Iterator[Finding]:
    """Which host it is and at which commit."""
    commit = f"commit {host.commit[:12]}" if host.commit else "not under git"
    yield Finding("host", "ok", f"{host.name} at {host.root}, {commit}")
    if host.dirty:
        yield Finding(
            "host",
            "note",
            "tracked files of the host have local edits beside the plugin's own",
            "results record this as dirty; commit the edits to make them reproducible",
        )


def installation(host: Host) -> Iterator[Finding]:
    """Whether the plugin is in the host, whole, and the host's modules import."""
    if host.embedded:
        yield Finding("host", "ok", "the plugin is built in")
    else:
        yield from _installed_files(host)
    try:
        yield Finding("host", "ok", f"{host.dataset_class.__name__} imports")
    except UserError as error:
        yield Finding(
            "host",
            "note",
            f"its dataset class does not import: {error.what} ({error.got}); our runs do not use it",
            error.next_step or "",
        )


def _installed_files(host: Host) -> Iterator[Finding]:
    fix = f"effort-finetune install {host.root}"
    record = read_record(host.root)
    files = status(host)
    wrong = [file for file in files if file.state not in FINE_STATES]
    if not is_installed(record, files):
        yield Finding("host", "warning", "the plugin is not installed in this host", fix)
    elif record.version is None:
        yield Finding("host", "error", f"the plugin is installed, but its record {MANIFEST} is lost", fix)
    elif wrong:
        names = ", ".join(f"{file.path} ({file.state})" for file in wrong)
        old = all(file.state == "outdated" for file in wrong)
        what = "by another version of the plugin" if old else "not as installed"
        yield Finding("host", "warning" if old else "error", f"the plugin's files are {what}: {names}", fix)
    else:
        for path, why in record.left.items():
            yield Finding(
                "host", "note", f"{path} was left as it is: {why}", f"effort-finetune status {host.root}"
            )
        yield Finding("host", "ok", f"files and blocks in place, by version {record.version}")


def device(settings: Settings) -> Iterator[Finding]:
    """The device and arithmetic a run would take."""
    chosen = choose_device(settings.device)
    precision = resolve_precision(settings.precision, chosen)
    yield Finding("device", "ok", f"runs take {chosen} in {precision.name} ({precision.reason})")
    if chosen.type == "cpu":
        yield Finding(
            "device",
            "note",
            "no GPU: a ViT-L/14 trains, slowly",
            "tune_mode: head, or a machine with a GPU, for large datasets",
        )


def weights(settings: Settings) -> Iterator[Finding]:
    """The checkpoint or the CLIP a run would start from."""
    if settings.pretrained_weights is not None:
        checkpoint = read_checkpoint(
            settings.pretrained_weights,
            allow_pickle=settings.allow_pickle,
            head_width=settings.head_width,
            hidden_act=settings.hidden_act,
        )
        wrong_size = checkpoint.resolution != settings.resolution
        yield Finding(
            "weights",
            "error" if wrong_size else "ok",
            f"{settings.pretrained_weights}: layout {checkpoint.layout}, {checkpoint.resolution} px",
            f"set resolution: {checkpoint.resolution}" if wrong_size else "",
        )
        return
    path = Path(settings.clip_path)
    if path.exists():
        yield Finding("weights", "ok", f"CLIP at {path}")
    elif _in_hub_cache(settings.clip_path):
        yield Finding("weights", "ok", f"CLIP {settings.clip_path} in the local hub cache")
    else:
        yield Finding(
            "weights",
            "warning",
            f"no checkpoint is named, and CLIP {settings.clip_path} is not on this machine",
            "give --pretrained_weights an Effort checkpoint, or --clip_path a CLIP folder; a hub id is "
            "downloaded at the first run",
        )


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # a path that is not there
        return False


def datasets(host: Host, settings: Settings) -> Iterator[Finding]:
    """Each dataset's index, labels and frames; those the settings name have to be there."""
    named = [*settings.train_dataset, *(settings.val_dataset or ()), *settings.test_dataset]
    folder = host.resolve(settings.dataset_json_folder)
    available = available_datasets(host, settings) if folder.is_dir() else []
    if not named and not available:
        demo = "`make demo` generates some; " if host.embedded else ""
        elsewhere = "" if folder.is_dir() else "; where there is one, name its folder as dataset_json_folder"
        raise UserError(
            "no dataset",
            got=f"no JSON in {folder}",
            next_step=f"{demo}effort-finetune prepare builds yours{elsewhere}",
        )
    for name in dict.fromkeys([*named, *available]):
        try:
            yield from _dataset(host, settings, name)
        except UserError as error:
            got = f"; got {error.got}" if error.got is not None else ""
            what = f"{name}: {error.what}{got}"
            yield Finding("data", "error" if name in named else "warning", what, error.next_step or "")


def _dataset(host: Host, settings: Settings, name: str) -> Iterator[Finding]:
    index = load_index(host, settings, name)
    videos = {split: [v for v in index.walk(split) if isinstance(v, Video)] for split in SPLITS}
    labels = {video.label_name for split in SPLITS for video in videos[split]}
    unknown = sorted(labels - set(settings.label_dict))
    if unknown:
        raise UserError(
            f"labels outside label_dict: {', '.join(unknown)}",
            next_step=f"add `{unknown[0]}: 0` (real) or `: 1` (fake) to label_dict in the YAML",
        )
    paths = [path for split in SPLITS for video in videos[split] for path in video.frames]
    if not paths:
        raise UserError("the index lists no frame", next_step=f"effort-finetune check-data {name}")
    source = open_source(host, settings, name, paths)
    counts = ", ".join(f"{len(videos[split])} {split}" for split in SPLITS)
    yield Finding("data", "ok", f"{name}: {counts} videos; {source.kind} at {source.location}")


def disk(host: Host, settings: Settings) -> Iterator[Finding]:
    """Room for checkpoints where a run would write them."""
    folder = Path(settings.output_dir) if settings.output_dir else host.resolve(settings.log_dir)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    enough = free >= _ROOM_NEEDED
    yield Finding(
        "disk",
        "ok" if enough else "warning",
        f"{free / 2**30:.0f} GiB free for {folder}",
        "" if enough else f"a ViT-L/14 run writes up to {_ROOM_NEEDED / 2**30:.0f} GiB; choose --output_dir",
    )
    if not os.access(existing, os.W_OK):
        yield Finding("disk", "error", f"{existing} cannot be written", "choose another --output_dir")
