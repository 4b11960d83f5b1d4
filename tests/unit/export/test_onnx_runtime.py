"""An exported ONNX file judges files as the checkpoint does; with 8 bits only where the verdicts agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toytower import save_toy_weights

from effort_finetune.cli.main import main
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.model.onnx_detector import OnnxDetector
from effort_finetune.predict.prediction import load_predictor

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
from effort_finetune.export import onnx_int8

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, 30 pictures of each class, and the exact ONNX file."""
    root = tmp_path_factory.mktemp("onnx")
    save_toy_weights(root / "effort.pth")
    rng = np.random.default_rng(3)
    for label in ("real", "fake"):
        (root / "pictures" / label).mkdir(parents=True)
        for number in range(30):
            small = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
            image = cv2.resize(small, (48, 40), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / "pictures" / label / f"{label}{number}.png"), image)
    assert export(root, "exact.onnx") == 0
    return root


def export(root: Path, name: str, *flags: str) -> int:
    words = ["export", str(root / "effort.pth"), "--to", "onnx", "--output", str(root / name)]
    return main([*words, "--head_width", "16", *flags])


def judged(root: Path, weights: str, *flags: str) -> list[dict[str, object]]:
    out = root / f"{weights}.jsonl"
    words = ["predict", str(root / "pictures"), "--weights", str(root / weights), "--faces", "whole"]
    assert main([*words, "--jsonl", str(out), *flags]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_file_is_judged_by_onnx_as_the_weights_it_was_made_of_judge_it(folder, settings_of_toy):
    exact = load_predictor(folder / "effort.pth", settings_of_toy, faces="whole")
    files = sorted(map(str, (folder / "pictures").rglob("*.png")))
    expected = {record.file: record.score for record in exact.records(files)}
    records = judged(folder, "exact.onnx", "--runtime", "onnx")
    assert {record["file"] for record in records} == set(expected)
    for record in records:
        assert record["score"] == pytest.approx(expected[str(record["file"])], abs=1e-5)


@pytest.fixture
def settings_of_toy():
    from effort_finetune.config import Settings

    return Settings(device="cpu", precision="float32", head_width=16)


def test_eight_bits_are_refused_where_verdicts_or_the_order_change():
    parity = {"files": 100, "mean_change": 0.1, "largest_change": 0.2}
    for flips, auc in ((1, None), (0, -0.002), (1, 0.002)):
        onnx_int8._refuse_changes({**parity, "flips": flips, "auc_change": auc})
    for flips, auc in ((2, None), (0, -0.0021), (0, 0.0021)):
        with pytest.raises(RunFailure, match="nothing was written"):
            onnx_int8._refuse_changes({**parity, "flips": flips, "auc_change": auc})


def test_eight_bits_say_how_their_verdicts_compared(folder, monkeypatch, capsys):
    monkeypatch.setattr(onnx_int8, "MOST_FLIPS", 1.0)
    monkeypatch.setattr(onnx_int8, "MOST_AUC_CHANGE", 1.0)
    flags = ("--int8", "--parity", str(folder / "pictures"), "--faces", "whole")
    assert export(folder, "small.onnx", *flags) == 0
    assert "int8 against float32 on 60 files" in capsys.readouterr().out
    parity = OnnxDetector(folder / "small.onnx").origin["int8"]
    exact, small = (
        {r["file"]: r["score"] for r in judged(folder, name)} for name in ("exact.onnx", "small.onnx")
    )
    apart = [abs(exact[file] - small[file]) for file in exact]
    assert parity["files"] == 60
    assert parity["mean_change"] == pytest.approx(np.mean(apart), abs=1e-4)
    assert parity["flips"] == sum((exact[file] > 0.5) != (small[file] > 0.5) for file in exact)
    assert max(apart) > 0, "8 bits are not exact"
    alone = judged(folder, "small.onnx", "--batch", "1")
    assert {r["file"]: r["score"] for r in alone} == small, "no score depends on the files beside it"
    assert "int8" in capsys.readouterr().err


def test_too_few_pictures_show_nothing(folder, tmp_path):
    only = tmp_path / "one.png"
    only.write_bytes(next((folder / "pictures").rglob("*.png")).read_bytes())
    assert export(folder, "few.onnx", "--int8", "--parity", str(only), "--faces", "whole") == 2
    assert not (folder / "few.onnx").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["export", "effort.pth", "--to", "onnx", "--int8", "--output", "x.onnx"], "--parity PATHS"),
        (["predict", "pictures", "--weights", "effort.pth", "--runtime", "onnx"], "export --to onnx"),
        (["predict", "pictures", "--weights", "exact.onnx", "--runtime", "torch"], "leave --runtime out"),
        (["predict", "pictures", "--weights", "exact.onnx", "--heatmap", "maps"], "need gradients"),
    ],
)
def test_what_cannot_be_asked_for_is_said(folder, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(folder)
    assert main(words) == 2
    assert expected in capsys.readouterr().err


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"no protobuf")
    with pytest.raises(UserError, match="an ONNX file that this version exported"):
        load_predictor(tmp_path / "other.onnx")
