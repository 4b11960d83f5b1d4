"""A model card: what a results file says of weights, as Markdown with the hub's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from effort_finetune.core.escaping import visible
from effort_finetune.core.metrics import TABLE
from effort_finetune.evaluate.report_sentences import warnings_of
from effort_finetune.evaluate.table import COLUMNS, interval

#: Settings of a training that a reader asks for first.
_ASKED = (
    "tune_mode", "residual_rank", "layer_range", "nEpochs", "train_batchSize", "accumulation_steps",
    "lr_scheduler", "optimizer", "loss", "frame_num", "select_on", "metric_scoring", "manualSeed",
)  # fmt: skip
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(
    document: Mapping[str, Any], *, name: str, weights: str, sha256: str, license: str | None = None
) -> str:
    """Returns the card, by the hub's specification of model cards (``model-index`` metadata).

    Every number is the results file's, with its interval; one that is null is left out of the metadata and a
    dash in the table.

    Args:
        document: A results document.
        name: Of the model.
        weights: File name of the weights beside the card.
        sha256: Of that file.
        license: Identifier of the licence, as the hub spells it; ``None`` states none.
    """
    name = visible(name)  # in one line, so that nothing of it ends the metadata
    front = yaml.safe_dump(
        _metadata(document, name, license), sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    parts = [f"---\n{front}---", f"# {_text(name)}", _about(document, weights), _results(document)]
    if document.get("training"):
        parts.append(_training(document))
    parts += [_limits(document), _provenance(document, sha256)]
    return "\n\n".join(parts) + "\n"


def _metadata(document: Mapping[str, Any], name: str, license: str | None) -> dict[str, Any]:
    settings = document["settings"]
    # Of what began with an Effort checkpoint, the tower below it is nowhere stated.
    from_clip = document["kind"] == "finetuning" and settings.get("pretrained_weights") is None
    base = str(settings.get("clip_path") or "") if from_clip else ""
    results = []
    for dataset, block in document["datasets"].items():
        video = block.get("video") or {}
        metrics = [
            {"type": f"video_{metric}", "name": f"Video {title}", "value": video[metric]}
            for metric, title in COLUMNS
            if video.get(metric) is not None
        ]
        if metrics:
            results.append(
                {
                    "task": {"type": "image-classification", "name": "Deepfake detection"},
                    "dataset": {"type": visible(dataset), "name": visible(dataset), "split": block["split"]},
                    "metrics": metrics,
                }
            )
    return {
        **({} if license is None else {"license": license}),
        "library_name": "effort-finetune",
        "pipeline_tag": "image-classification",
        "tags": ["deepfake-detection", "effort", "clip", "svd"],
        **({"base_model": base} if _HUB_ID.fullmatch(base) else {}),
        "model-index": [{"name": name, "results": results}],
    }


def _about(document: Mapping[str, Any], weights: str) -> str:
    protocol = document["protocol"]
    size = protocol["resolution"]
    return "\n".join(
        [
            "A detector of forged faces and generated pictures: CLIP with attention weights split by SVD",
            "into a frozen main part and a trained residual (Effort, arXiv 2411.15633). It returns the",
            "probability that a picture is fake.",
            "",
            "```bash",
            f"effort-finetune predict --weights {weights} suspicious.jpg",
            f"effort-finetune evaluate --weights {weights} --test_dataset /path/to/folder",
            "```",
            "",
            f"Input: {size} x {size} pixels, {protocol['interpolation']};",
            f"crops: {_text(protocol['crops'])}. The file of weights states its preprocessing.",
        ]
    )


def _results(document: Mapping[str, Any]) -> str:
    protocol = document["protocol"]
    head = ["dataset", "videos (real + fake)", *(f"video {title}" for _, title in COLUMNS), "frame AUC"]
    rows = []
    for name, block in document["datasets"].items():
        counts, video, frame = block["counts"], block.get("video") or {}, block.get("frame") or {}
        cells = [_cell(video, metric) for metric, _ in COLUMNS]
        size = f"{counts['videos_real']} + {counts['videos_fake']}"
        rows.append([_text(name), size, *cells, _cell(frame, "auc")])
    table = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
    rules = (
        f"{protocol['split']} split, up to {protocol['frames_asked']} frames a video "
        f"({protocol['frame_sampling']}); video score: {protocol['video_score']}; "
        f"{protocol['threshold_rule']}, threshold {protocol['threshold']:g}. "
        "In brackets the 95 % interval over videos."
    )
    return f"## Results\n\n{table}\n\n{rules}"


def _training(document: Mapping[str, Any]) -> str:
    settings, training = document["settings"], document["training"]
    lines = [f"- datasets: {_text(', '.join(map(str, settings['train_dataset'])))}"]
    lines += [
        f"- `{key}`: {_text(settings[key])}" for key in _ASKED if settings.get(key) not in (None, "", [])
    ]
    if share := (training.get("trainable") or {}).get("share"):
        lines.append(f"- trained: {share:.3%} of all parameters")
    selected = (training.get("selection") or {}).get("epoch")
    if selected is not None:
        lines.append(f"- selected: epoch {selected}; epochs trained: {len(training.get('history') or ())}")
    return "## Training\n\n" + "\n".join(lines)


def _limits(document: Mapping[str, Any]) -> str:
    lines = [
        "- A detector knows the forgeries it was trained on. On others its numbers are lower than these, and",
        "  its probabilities mean less: calibrate on material of your own (`effort-finetune calibrate`).",
        "- It is no proof that a picture is real or fake.",
    ]
    for name in document["datasets"]:
        lines += [f"- {_text(name)}: {_text(warning)}" for warning in warnings_of([("", document)], name)]
    return "## Limits\n\n" + "\n".join(lines)


def _provenance(document: Mapping[str, Any], sha256: str) -> str:
    checkpoint, code = document["checkpoint"] or {}, document["code"]
    commit = f" at {code['commit'][:10]}" if code.get("commit") else ""
    lines = [
        f"- the weights beside this card: SHA-256 `{sha256}`",
        f"- the file that was measured, of the same tensors: SHA-256 `{checkpoint.get('sha256', 'unknown')}`",
        f"- effort-finetune {code['version']}{commit}, {document['created']}",
        f"- settings digest `{document['settings_digest']}`; everything else in `results.json`",
    ]
    return "## Where the numbers come from\n\n" + "\n".join(lines)


def _cell(block: Mapping[str, Any], metric: str) -> str:
    bounds = (block.get("ci95") or {}).get("intervals", {}).get(metric)
    value = TABLE[metric].text(block.get(metric))
    return value if bounds is None else f"{value} {interval(bounds)}"


def _text(value: object) -> str:
    """Text from files, in one line, in which Markdown and HTML find nothing to act on."""
    if isinstance(value, Mapping):
        known = {k: v for k, v in value.items() if v is not None and not isinstance(v, Mapping)}
        value = ", ".join(f"{k} {v}" for k, v in known.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(map(str, value))
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", visible(value, limit=500))
