"""Maps of where the model looked, for the crops that a page shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effort_finetune.model.heat_map import heat_maps
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.file_pictures import HeatMaps


def heat_maps_of(predictor: Predictor) -> HeatMaps:
    """Makes what draws the maps of a predictor's model."""

    def maps(images: Sequence[np.ndarray]) -> np.ndarray:
        return heat_maps(predictor.model, predictor.inputs(images)).numpy()

    return maps
