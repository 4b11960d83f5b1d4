"""What people wrap around a state dict: trainer dictionaries, ``module.`` and ``_orig_mod.`` prefixes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.weights import vision_config
from effort_finetune.weights.statement import Statement

WRAPPER_KEYS = (
    *("state_dict", "model_state_dict", "model", "model_state", "net", "params", "weights", "ema"),
)
# Of torch's AveragedModel, which puts its model's keys under `module.`.
AVERAGED_COUNTER = "n_averaged"
PREFIXES = {"module.": "ddp", "_orig_mod.": "torch.compile"}
# What a whole detector may stand under, and what torch puts inside one of its parts.
_OUTER = re.compile(r"(model|net|detector)\.(?=((module|_orig_mod)\.)*(backbone|head)\.)")
_INNER = re.compile(r"(?P<part>backbone|head)\.((module|_orig_mod)\.)+")
# Of profilers (thop), which leave counters in every module.
_COUNTERS = re.compile(r"(.*\.)?total_(ops|params)")
MAX_DEPTH = 4
OWN_FORMAT = "effort_finetune.train/"  # how the "format" of our ckpt_last.pth begins

# Names that trainers put beside the weights. Anything else that holds tensors is not guessed at.
TRAINING_STATE = {
    "*optim*": "optimizer state",
    "*sched*": "scheduler state",
    "*scaler*": "gradient scaler state",
    "*rng*": "random number generator state",
    "*random*": "random number generator state",
    "*ema*": "averaged copy of the weights; the plain ones are read",
    "swa*": "averaged copy of the weights; the plain ones are read",
    "*loop*": "trainer state",
    "*callback*": "trainer state",
    "*metric*": "trainer state",
    "*best*": "trainer state",
}


@dataclass
class Unwrapped:
    """A flat state dict and what surrounded it.

    Attributes:
        tensors: Key to tensor, prefixes common to all keys removed.
        wrappers: Names of the wrappers and prefixes removed, outermost first.
        ignored: Key to rule for what is not a weight.
        unexpected: Keys that hold tensors and that nothing explains.
        stated: What the state dict says about its tower; see :mod:`~effort_finetune.weights.vision_config`.
        statement: What it says about its use; see :mod:`~effort_finetune.weights.statement`.
    """

    tensors: dict[str, torch.Tensor]
    wrappers: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    stated: Mapping[str, Any] = field(default_factory=dict)
    statement: Statement = field(default_factory=Statement)


def unwrap(content: Any, what: str) -> Unwrapped:
    """Digs the flat state dict out of a file's content.

    Args:
        content: What the file holds: a mapping, possibly nested under ``state_dict``, ``model_state_dict`` or
            ``model``, or (read with ``allow_pickle``) a whole module.
        what: How to name the file in an error.

    Raises:
        UserError: If there is no mapping of tensors inside.
    """
    result = Unwrapped({})
    for _ in range(MAX_DEPTH):
        if isinstance(content, torch.nn.Module):
            result.wrappers.append("module object")
            content = content.state_dict()
        if not isinstance(content, Mapping):
            raise UserError(
                what, got=f"a {type(content).__name__}", expected="a checkpoint (a dict of tensors)"
            )
        inner = [key for key in WRAPPER_KEYS if _wraps(content.get(key))]
        if not inner:
            break
        chosen = inner[0]
        result.wrappers.append(chosen)
        ours = str(content.get("format", "")).startswith(OWN_FORMAT)
        for key, value in content.items():
            if key != chosen and ours:
                result.ignored[str(key)] = "training state of one of our runs"
            elif key != chosen:
                _classify(str(key), value, result)
        content = content[chosen]
    said = vision_config.of_state(content, what)
    result.stated, result.statement = said.config, said.statement
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if key == AVERAGED_COUNTER:
            result.ignored[key] = "counter of an averaged model"
        elif isinstance(key, str) and _COUNTERS.fullmatch(key):
            result.ignored[key] = "counter of a profiler"
        elif isinstance(value, torch.Tensor):
            tensors[str(key)] = value
        else:
            _classify(str(key), value, result)
    if not tensors:
        keys = ", ".join(map(str, list(content)[:5])) or "an empty dict"
        raise UserError(what, got=f"no tensors ({keys})", expected="a checkpoint (a dict of tensors)")
    result.tensors = _strip_prefixes(tensors, result.wrappers)
    if all(_OUTER.match(key) for key in result.tensors):
        outer = {_OUTER.match(key)[0] for key in result.tensors}  # type: ignore[index]
        if len(outer) == 1:
            prefix = outer.pop()
            result.wrappers.append(prefix)
            cut = {key[len(prefix) :]: value for key, value in result.tensors.items()}
            result.tensors = _strip_prefixes(cut, result.wrappers)
    result.tensors = _strip_inner(result.tensors, result.wrappers, what)
    return result


def _strip_inner(tensors: dict[str, torch.Tensor], wrappers: list[str], what: str) -> dict[str, torch.Tensor]:
    """Takes away what torch puts between a part's name and its own keys: ``backbone._orig_mod.``.

    Raises:
        UserError: If two keys come to the same name: which one is meant, nobody can tell.
    """
    stripped: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        found = _INNER.match(key)
        name = key if found is None else f"{found['part']}.{key[found.end() :]}"
        if found is not None and found[0] not in wrappers:
            wrappers.append(found[0])
        if name in stripped:
            raise UserError(
                what, got=f"two tensors for {visible(name)}", expected="one, bare or under a wrapper"
            )
        stripped[name] = value
    return stripped


def _wraps(value: Any) -> bool:
    return isinstance(value, torch.nn.Module) or (isinstance(value, Mapping) and _holds_tensors(value))


def _strip_prefixes(tensors: dict[str, torch.Tensor], wrappers: list[str]) -> dict[str, torch.Tensor]:
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        wrappers.append(PREFIXES[prefix])
        tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors


def _classify(key: str, value: Any, result: Unwrapped) -> None:
    rule = next((r for pattern, r in TRAINING_STATE.items() if fnmatch.fnmatch(key.lower(), pattern)), None)
    if rule is None and not _holds_tensors(value):
        rule = "beside the weights, holds no tensor"
    if rule is None:
        result.unexpected.append(key)
    else:
        result.ignored[key] = rule


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, torch.nn.Module):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_tensors, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_holds_tensors, value))
