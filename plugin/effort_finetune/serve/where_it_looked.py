"""Maps of where the model looked, for the crops that a page shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effort_finetune.model.heat_map import heat_maps
from effort_finetune.model.pointing_figures import chosen_map
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.file_pictures import HeatMaps


def heat_maps_of(predictor: Predictor) -> HeatMaps | None:
    """Makes what draws the maps of a predictor's model; None where none beats chance."""
    method = chosen_map(predictor.model).method
    if method is None:
        return None

    def maps(images: Sequence[np.ndarray]) -> np.ndarray:
        return heat_maps(predictor.model, predictor.inputs(images), method).numpy()

    return maps
