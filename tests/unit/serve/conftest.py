"""A page with a tiny tower, spoken to in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from toytower import save_toy_weights

pytest.importorskip("fastapi", reason="the extra `web` is not installed")
from starlette.testclient import TestClient

from effort_finetune.config import Settings
from effort_finetune.predict.heat_files import HeatMapper
from effort_finetune.predict.prediction import Predictor, load_predictor
from effort_finetune.serve.gate import Gate, own_names
from effort_finetune.serve.open_page import OpenPage, open_page
from effort_finetune.serve.page_app import page_app
from effort_finetune.serve.page_limits import PageLimits

ADDRESS = "http://127.0.0.1:8765"


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_toy_weights(tmp_path_factory.mktemp("weights") / "effort.pth")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(device="cpu", precision="float32", workers=0, head_width=16, test_batchSize=4)


@pytest.fixture(scope="session")
def predictor(weights, settings) -> Predictor:
    return load_predictor(weights, settings, faces="whole")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Six pictures that are not alike."""
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for number in range(6):
        small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        files.append(folder / f"face{number}.png")
        cv2.imwrite(str(files[-1]), cv2.resize(small, (96, 96), interpolation=cv2.INTER_CUBIC))
    return files


class Visitor:
    """A browser's part: announces, sends, waits."""

    def __init__(self, page: OpenPage, client: TestClient) -> None:
        self.page, self.client = page, client

    def announce(self, files: dict[str, bytes], **more: object) -> list[int]:
        listed = [{"name": name, "size": len(content)} for name, content in files.items()]
        answer = self.client.post("/batches", json={"files": listed, **more})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["rows"])

    def send(self, row: int, content: bytes) -> int:
        return int(self.client.put(f"/rows/{row}/file", content=content).status_code)

    def drop(self, files: dict[str, bytes], **more: object) -> list[int]:
        rows = self.announce(files, **more)
        for row, content in zip(rows, files.values(), strict=True):
            assert self.send(row, content) == 204
        return rows

    def wait(self, rows: list[int]) -> list[dict]:
        """Returns the rows when all are finished."""
        deadline = time.monotonic() + 60
        while True:
            found = [self.client.get(f"/rows/{row}").json() for row in rows]
            if all(row["state"] in ("done", "refused") for row in found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


Visit = Callable[..., "contextmanager"]


@pytest.fixture
def visit(predictor, tmp_path):
    """Opens a page on a folder, by default the same one again."""

    @contextmanager
    def opened(folder: Path = tmp_path / "page", *, judge: bool = True, **limits: int) -> Iterator[Visitor]:
        gate = Gate(own_names("127.0.0.1"), any_address=False, token=None)
        with open_page(folder, predictor, limits=PageLimits(**limits), heat=HeatMapper(predictor)) as page:
            if not judge:
                page.scoring.stop()
            with TestClient(page_app(page, gate, port=8765), base_url=ADDRESS) as client:
                yield Visitor(page, client)

    return opened


@pytest.fixture
def visitor(visit) -> Iterator[Visitor]:
    with visit() as one:
        yield one


def film(path: Path, frames: int) -> bytes:
    rng = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    writer.release()
    return path.read_bytes()
