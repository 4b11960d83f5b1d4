"""Three files to ask the detector about: a forged frame, a real one, and a picture without a face."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import lmdb
import numpy as np


def write_files(lmdb_dir: Path, json_dir: Path, dataset: str, folder: Path) -> dict[str, Path]:
    """Writes a test frame of each class, as the LMDB holds it, and a picture of nothing.

    Args:
        lmdb_dir: Holds ``<dataset>_lmdb``.
        json_dir: Holds ``<dataset>.json``.
        dataset: Whose first test videos are taken.
        folder: Gets the files; made where it is not there.

    Returns:
        ``forged``, ``real`` and ``no_face``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = json.loads((json_dir / f"{dataset}.json").read_text(encoding="utf-8"))[dataset]
    out = {}
    environment = lmdb.open(str(lmdb_dir / f"{dataset}_lmdb"), readonly=True, lock=False)
    with environment.begin() as transaction:
        for name, label in (("forged", "Fake"), ("real", "Real")):
            video = next(iter(index[f"{dataset}_{label}"]["test"].values()))
            out[name] = folder / f"{name}.png"
            out[name].write_bytes(transaction.get(video["frames"][0].replace("/", "\\").encode()))
    environment.close()
    blots = np.random.default_rng(0).integers(60, 200, (6, 6, 3)).astype(np.uint8)
    out["no_face"] = folder / "no_face.png"
    cv2.imwrite(str(out["no_face"]), cv2.resize(blots, (320, 240), interpolation=cv2.INTER_CUBIC))
    return out
