"""Where a calibrated copy of weights goes, known before torch is."""

from __future__ import annotations

from pathlib import Path

from effort_finetune.core.errors import UserError


def calibrated_name(weights: Path) -> Path:
    """Returns the name beside the weights that a calibrated copy gets."""
    if weights.is_dir():
        return weights.with_name(f"{weights.name}_calibrated")
    return weights.with_name(f"{weights.stem}_calibrated{weights.suffix}")


def check_output(output: Path) -> None:
    """Refuses an output that would take the place of anything.

    Raises:
        UserError: If there is something already: published weights are never overwritten.
    """
    if output.exists():
        raise UserError(
            "--output", got=f"{output}, which exists", expected="a new file: weights are never overwritten"
        )
