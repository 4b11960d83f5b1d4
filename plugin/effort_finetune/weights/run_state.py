"""What a run folder holds of its model: the frozen part once, the state of the run, the selected weights.

``frozen_<hash>.pth`` is written once and holds what training cannot change; ``ckpt_last.pth`` holds the rest
(weights, best copy, optimiser, schedule, generators, record), and is all that an epoch writes;
``ckpt_best.pth``, in DeepfakeBench's own layout, is put together from the two at the end of a run, or by
``effort-finetune export RUN_FOLDER``. All are written atomically, so that a process killed at any moment
leaves the last good file, and hold tensors and plain containers only: they load with ``weights_only=True``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import WriteError, atomic_write, free_name, sha256_file
from effort_finetune.weights.layouts import LOSS_LEAF
from effort_finetune.weights.peft_names import merged, without_adapters
from effort_finetune.weights.tensor_trees import clones, packed, tensors_sha256
from effort_finetune.weights.vision_config import Said, of_state, stating

LAST_NAME = "ckpt_last.pth"
BEST_NAME = "ckpt_best.pth"
FROZEN_FILES = "frozen_*.pth"
FORMAT = "effort_finetune.train/3"
VERSION_1_FORMAT = "effort_finetune.train/2"


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """The file that holds what training cannot change.

    Attributes:
        name: ``frozen_<hash>.pth``, in the run folder.
        sha256: Of its tensors' names, types, shapes and bytes.
    """

    name: str
    sha256: str


def changing_names(model: nn.Module) -> tuple[str, ...]:
    """Returns the keys of the state dict that training may change.

    Our detector says what it trains, and nothing else of it moves. Of another one anything may: it may keep
    statistics in buffers, or average weights that ask for no gradient.
    """
    keys = tuple(model.state_dict())
    trained = getattr(getattr(model, "trainable", None), "names", keys)
    return tuple(key for key in keys if key in trained)


def copy_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Returns some tensors of a model as copies on the CPU."""
    state = model.state_dict()
    return {name: state[name].detach().to("cpu", copy=True) for name in names}


def write_frozen(folder: Path, model: nn.Module, changing: Iterable[str]) -> FrozenPart:
    """Writes what training cannot change, unless the folder has it already.

    Raises:
        RunFailure: If it cannot be written.
    """
    state = model.state_dict()
    moving = set(changing)
    tensors = {name: value.detach().cpu() for name, value in state.items() if name not in moving}
    sha256 = tensors_sha256(tensors)
    part = FrozenPart(f"frozen_{sha256[:16]}.pth", sha256)
    if not (folder / part.name).is_file():
        said = stating(tensors, of_state(state, "model"))
        save(folder / part.name, {"format": FORMAT, "keys": list(state), "frozen": said})
    return part


def save_weights(path: Path, state: Mapping[str, Tensor], said: Said) -> str:
    """Writes a plain state dict, ``backbone.*`` and ``head.*``: DeepfakeBench's own layout.

    Args:
        path: The file.
        state: All tensors of the model.
        said: What no tensor tells, see :mod:`~effort_finetune.weights.vision_config`.

    Returns:
        SHA-256 of the file as it was written.

    Raises:
        RunFailure: If it cannot be written.
    """
    tensors = {
        name: tensor.detach().cpu()
        for name, tensor in state.items()
        if not name.endswith(f".{LOSS_LEAF}")  # a reference of a loss, which DeepfakeBench would refuse
    }
    return save(path, stating(tensors, said))


def save_best(path: Path, model: nn.Module, best: Mapping[str, Tensor] | None = None) -> str:
    """Writes a model's weights, with the copy of another epoch in place of those that training changed."""
    state = model.state_dict()
    # The copy lies on the CPU; an adapter is merged of both.
    here = {name: tensor.detach().cpu() for name, tensor in state.items()}
    return save_weights(path, merged({**here, **(best or {})}), of_state(state, "model"))


def save_last(path: Path, document: Mapping[str, Any]) -> str:
    """Writes all that a run needs to go on as if it had not stopped; tensors and plain containers.

    Raises:
        RunFailure: If it cannot be written.
    """
    return save(path, packed({"format": FORMAT, **document}))


def save(path: Path, obj: Any) -> str:
    """Writes ``obj`` with ``torch.save`` and returns the file's SHA-256; equal objects give equal files.

    Raises:
        RunFailure: If it cannot be written.
    """
    digest = ""

    def write(temporary: Path) -> None:
        nonlocal digest
        with temporary.open("wb") as stream:  # given a path, torch would name the archive's root after it
            torch.save(obj, stream)
        digest = sha256_file(temporary)

    try:
        atomic_write(path, write)
    except WriteError as error:
        raise RunFailure(str(error).partition("; next:")[0]) from error  # what is next, the run knows
    return digest


def folder_of(resume: Path | str) -> Path:
    """Returns the run folder that ``resume`` names, by itself or by a checkpoint in it."""
    path = Path(resume)
    return path if path.is_dir() else path.parent


def state_file(resume: Path | str) -> Path:
    """Returns the file that ``resume`` names, by itself or by its run folder.

    Raises:
        UserError: If it does not exist.
    """
    path = Path(resume)
    path = path / LAST_NAME if path.is_dir() else path
    if not path.is_file():
        raise UserError("--resume", got=f"{path}, which does not exist", expected=f"a run's {LAST_NAME}")
    return path


def load_last(path: Path | str) -> dict[str, Any]:
    """Reads a ``ckpt_last.pth``, or that of a run folder, onto the CPU.

    Raises:
        UserError: If there is no such file or it is not one of ours.
    """
    path = state_file(path)
    document = _load(path, "--resume")
    if isinstance(document, dict) and document.get("format") == VERSION_1_FORMAT:
        raise UserError(
            "--resume",
            got=f"{path}, written by version 1, whose runs cannot go on",
            expected=f"a run of this version; its weights are good: effort-finetune export {path.parent}",
            next_step="start a new run from what it names with --pretrained_weights",
        )
    if not is_state(document):
        raise UserError(
            "--resume",
            got=f"{path}, which holds no training state of this version",
            expected=f"a run's {LAST_NAME}",
            next_step="to start a new run from these weights use --pretrained_weights",
        )
    return clones(document)


def file_in(folder: Path) -> Path | None:
    """Returns the file that has a run folder's selected weights; ``None`` where the path is no run folder.

    A run of version 1 kept them in ``ckpt_best.pth`` from the first epoch on, one of this version keeps them
    in its state.
    """
    last, best = folder / LAST_NAME, folder / BEST_NAME
    if not last.is_file():
        return best if best.is_file() else None
    return last if any(folder.glob(FROZEN_FILES)) or not best.is_file() else best


def is_state(content: Any) -> bool:
    """Tells whether a file's content is that of a ``ckpt_last.pth`` of this version."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT and "changing" in content


def frozen_file(saved: Mapping[str, Any], folder: Path) -> Path:
    """Returns the file of the frozen part that a run's state names.

    Raises:
        UserError: If it is missing.
    """
    name = saved["frozen"]["name"]
    path = folder / Path(name).name
    if not path.is_file():
        raise UserError(
            f"run folder {folder}", got=f"no {name}", expected="the frozen weights that the run's state lacks"
        )
    return path


def whole(
    saved: Mapping[str, Any], folder: Path, *, selected: bool, merge_adapters: bool = True
) -> OrderedDict[str, Tensor]:
    """Puts a state dict together from a run's state and the frozen part beside it.

    Args:
        saved: Content of ``ckpt_last.pth``.
        folder: The run folder.
        selected: Take the selected weights, where an epoch was selected, in place of the last ones.
        merge_adapters: Merge LoRA or DoRA; false leaves them out.

    Raises:
        UserError: If the frozen part is missing or not the one that the run began with.
    """
    name, sha256 = saved["frozen"]["name"], saved["frozen"]["sha256"]
    path = frozen_file(saved, folder)
    content = _load(path, f"run folder {folder}")
    frozen = content.get("frozen") if isinstance(content, dict) else None
    if not isinstance(frozen, Mapping) or tensors_sha256(frozen) != sha256:
        raise UserError(
            f"run folder {folder}",
            got=f"another {name} than the run wrote: its tensors have another hash",
            expected=f"SHA-256 {sha256}",
            next_step="copy the run's own file back",
        )
    best = (saved["best"] or (saved.get("average") or {}).get("average")) if selected else None
    tensors = {**frozen, **clones(saved["changing"]), **clones(best or {})}
    ordered = {key: tensors[key] for key in content["keys"]}
    plain = merged(ordered) if merge_adapters else without_adapters(ordered)
    return stating(plain, of_state(frozen, str(path)))


def finish(folder: Path) -> tuple[Path, int | None]:
    """Writes the ``ckpt_best.pth`` of a run from its state, as the run would have at its end.

    A file that has these weights already stays as it is, one with other weights is archived beside it. Of a
    run of version 1 the file is there from its first selected epoch on; before that its last weights stand
    in.

    Args:
        folder: The run folder.

    Returns:
        The file, and the epoch it is of; ``None`` where no epoch was selected.

    Raises:
        UserError: If the frozen part is missing or damaged.
        RunFailure: If it cannot be written.
    """
    path = folder / BEST_NAME
    saved = _load(state_file(folder), f"run folder {folder}")
    if is_state(saved):
        state: Mapping[str, Tensor] = whole(saved, folder, selected=True)
    elif path.is_file():
        return path, saved["selection"]["best"]["epoch"]
    else:
        state = saved["model"]
    kept = {name: value for name, value in state.items() if not name.endswith(f".{LOSS_LEAF}")}
    there = _load(path, str(path)) if path.is_file() else None
    if there is None or tensors_sha256(there) != tensors_sha256(kept):
        if there is not None:
            path.replace(free_name(path))
        save_weights(path, state, of_state(state, str(path)))
    best = saved["selection"]["best"]
    return path, None if best is None else best["epoch"]


def _load(path: Path, what: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a file it cannot read
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            what, got=f"{path}, which cannot be read ({reason[:160]})", expected="a file of a run of ours"
        ) from error
