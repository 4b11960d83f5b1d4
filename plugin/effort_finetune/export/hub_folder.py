"""A folder as a model hub wants it: weights, model card, results without this machine's paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file, write_text
from effort_finetune.core.whole_folder import whole_folder
from effort_finetune.evaluate import results
from effort_finetune.export.hub_transfer import CARD, RESULTS, WEIGHTS
from effort_finetune.export.model_card import model_card
from effort_finetune.weights.deepfakebench_layout import Exported

_ABSOLUTE = re.compile(r"(?:/|~|[A-Za-z]:[\\/]|\\\\)")


def export_hub_folder(
    folder: Path | str,
    document: Mapping[str, Any],
    write_weights: Callable[[Path], Exported],
    *,
    adapter: bool,
    name: str,
    license: str | None = None,
) -> Exported:
    """Writes the folder as a whole, or nothing.

    Args:
        folder: The folder.
        document: Results of the weights.
        write_weights: Writes them to the path it is given.
        adapter: Whether they are an adapter.
        name: Of the model.
        license: Identifier of the licence.
    """
    folder = Path(folder)
    file = WEIGHTS[adapter]
    with whole_folder(folder) as made:
        written = write_weights(made / file)
        public = without_paths(document)
        results.write(made / RESULTS, public)
        card = model_card(public, name=name, weights=file, sha256=sha256_file(made / file), license=license)
        write_text(made / CARD, card)
    return Exported(
        tuple(folder / part for part in (CARD, file, RESULTS)),
        (*written.notes, "frame scores and this machine's paths are left out of results.json"),
    )


def refuse_results_of_others(document: Mapping[str, Any], path: Path, sha256: str) -> None:
    """Refuses results that belong to other weights.

    Args:
        document: The results.
        path: Where they were read, for the error.
        sha256: Of the file of weights.

    Raises:
        UserError: If they were measured with other weights.
    """
    measured = (document["checkpoint"] or {}).get("sha256")
    if measured != sha256:
        raise UserError(
            f"results of the weights, {path}",
            got=f"numbers of weights with SHA-256 {str(measured)[:12]}",
            expected=f"{sha256[:12]}, the file that is exported",
            next_step="measure it with `effort-finetune evaluate` and name the folder with --results",
        )


def without_paths(value: Any) -> Any:
    """Returns a results document whose absolute paths are file names, and that names no score files."""
    if isinstance(value, Mapping):
        cleaned = {key: without_paths(own) for key, own in value.items()}
        if "scores" in cleaned and "scores_sha256" in cleaned:
            cleaned["scores"] = None
        return {_shown(key): own for key, own in cleaned.items()}
    if isinstance(value, list):
        return [without_paths(own) for own in value]
    return _shown(value)


def _shown(value: Any) -> Any:
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1] or value
    return value
