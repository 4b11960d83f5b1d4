"""The ONNX file with weights of 8 bits, written only where it judges pictures as the exact model does.

Weights are rounded per channel when the file is made, activations per pass (ONNX Runtime's dynamic
quantisation of matrix products); the first convolution stays float32. Since the scale of a pass depends on
all that is in it, each picture is a pass of its own.
"""

from __future__ import annotations

import logging
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.config import Settings
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import atomic_write
from effort_finetune.core.progress import track
from effort_finetune.data.class_words import ClassWords
from effort_finetune.export.onnx import export_onnx, set_origin
from effort_finetune.predict.file_crops import AS_IS
from effort_finetune.predict.file_metrics import LabelledFiles
from effort_finetune.predict.file_verdict import record_of
from effort_finetune.predict.inputs import label_of
from effort_finetune.predict.prediction import Predictor, load_predictor
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.deepfakebench_layout import Exported

MOST_FLIPS, MOST_AUC_CHANGE = 0.01, 0.002
PRODUCTS = ["MatMul", "Gemm"]
FEWEST = 50  # files with a score: one flip of fewer is more than the limit, and none says little
#: Names of the instructions that multiply bytes, as Linux lists them.
INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def export_int8(
    checkpoint: Checkpoint, weights: Path, path: Path, files: Sequence[str], *, faces: str = "auto"
) -> Exported:
    """Exports the detector with 8-bit weights and compares its verdicts with those of the exact model.

    Args:
        checkpoint: The model.
        weights: Its file, for the exact model.
        path: File to write.
        files: Pictures and videos that both judge; where folders name the classes, the AUC counts as well.
        faces: How they are cut, see :func:`load_predictor`.

    Raises:
        UserError: If a package is missing, or too few files have a score.
        RunFailure: If more than 1 % of the verdicts change sides, or the AUC moves by more than .002;
            nothing is written then.
    """
    if len(files) < FEWEST:
        raise _too_few(len(files))
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "exact.onnx", Path(folder) / "small.onnx"
        export_onnx(checkpoint, exact)
        _quantise(exact, small)
        set_origin(small, int8={"files": 0, "flips": 0})  # so that it is run as it will be
        tower = checkpoint.vision_config
        settings = Settings(
            device="cpu",
            precision="float32",
            head_width=tower["hidden_size"] // tower["num_attention_heads"],
            hidden_act=tower["hidden_act"],
        )
        judges = load_predictor(weights, settings, faces=faces), load_predictor(small, settings, faces=faces)
        parity = _compare(*judges, files)
        _refuse_changes(parity)
        set_origin(small, int8=parity)
        written = atomic_write(path, lambda temporary: temporary.write_bytes(small.read_bytes()))
    return Exported((written,), notes=(parity_line(parity), _speed_line(parity)))


def _too_few(scored: int) -> UserError:
    return UserError(
        "--parity",
        got=f"{scored} files with a score",
        expected=f"at least {FEWEST}, to see whether verdicts change",
    )


def parity_line(parity: dict[str, Any]) -> str:
    """What the comparison found, in one line."""
    auc = parity["auc_change"]
    told = "no AUC: the folders do not name both classes" if auc is None else f"AUC changes by {auc:+.4f}"
    return (
        f"int8 against float32 on {parity['files']} files: {parity['flips']} verdicts change sides, {told}, "
        f"probabilities by {parity['mean_change']:.4f} on average and {parity['largest_change']:.4f} at most"
    )


def _speed_line(parity: dict[str, Any]) -> str:
    has = (
        "has instructions for 8 bits"
        if has_int8_instructions()
        else ("lists no instructions for 8 bits: float32 may be the better choice here")
    )
    return (
        f"files a second, reading and cutting included: {parity['speed']:.2f} times those of float32 on this "
        f"machine, whose processor {has}"
    )


def has_int8_instructions() -> bool:
    """Tells whether the processor multiplies bytes at once; every Apple chip does."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not INSTRUCTIONS.isdisjoint(words)


def _quantise(exact: Path, small: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(exact)
    del model.graph.value_info[:]  # the exporter's notes on shapes, which its own rewriting made stale
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends a step that does nothing for this graph
    try:
        quantize_dynamic(
            model, small, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=PRODUCTS
        )
    finally:
        logger.setLevel(level)


def _compare(exact: Predictor, small: Predictor, files: Sequence[str]) -> dict[str, Any]:
    words, rule = ClassWords(), exact.rule
    judges = (exact, small)
    labelled = [LabelledFiles(rule.threshold) for _ in judges]
    pairs: list[list[float]] = []
    spent = np.zeros(3)  # seconds of cutting and of each judge
    cut = exact.reader.cut(exact.cutter(), files)
    for found in track(cut, desc="comparing", unit="file", total=len(files)):
        scores, seconds = [], [found.seconds]
        for judge, collected in zip(judges, labelled, strict=True):
            (probs, features), scoring = _timed(judge.scored, [cut.image for cut in found.cuts])
            seconds.append(scoring)
            label = label_of(found.file, words)
            record = record_of(found, {AS_IS: probs.tolist()}, rule, features=features, label=label)
            collected.add(record)
            scores += [] if record.score is None else [record.score]
        if len(scores) == len(judges):
            pairs.append(scores)
            spent += seconds if len(pairs) > 1 else 0.0  # the first pass of a model makes room for the others
    if len(pairs) < FEWEST:
        raise _too_few(len(pairs))
    aucs = [collected.metrics()["auc"] for collected in labelled]
    apart = np.abs(np.diff(pairs, axis=1))
    return {
        "files": len(pairs),
        "flips": sum(rule.says_fake(one) != rule.says_fake(other) for one, other in pairs),
        "auc_change": None if None in aucs else aucs[1] - aucs[0],
        "mean_change": float(apart.mean()),
        "largest_change": float(apart.max()),
        "speed": float((spent[0] + spent[1]) / (spent[0] + spent[2])),
    }


def _refuse_changes(parity: dict[str, Any]) -> None:
    flips = parity["flips"] > MOST_FLIPS * parity["files"]
    if flips or abs(parity["auc_change"] or 0.0) > MOST_AUC_CHANGE:
        raise RunFailure(
            f"export to onnx: {parity_line(parity)}; allowed are {MOST_FLIPS:.0%} of the verdicts and an AUC "
            f"of {MOST_AUC_CHANGE}; nothing was written; next: keep float32, export without --int8"
        )


def _timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    started = time.process_time()
    done = work(*given)
    return done, time.process_time() - started
