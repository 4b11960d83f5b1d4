"""Writes what is made from the code's tables: the settings' JSON Schema, the marked blocks of docs/, and
``data_aug`` of the settings file that ships.

``make generate`` runs it. A block of a page stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``;
:data:`BLOCKS` says which table fills it. With ``--check`` nothing is written, and the exit code is 1 where
a file is out of date.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from effort_finetune.cli import settings
from effort_finetune.config import json_schema
from effort_finetune.config.augmentations import STEPS
from effort_finetune.config.wording import in_yaml
from effort_finetune.core.metrics import TABLE
from effort_finetune.core.strict_json import read_json
from effort_finetune.install.known_problems import PROBLEMS
from effort_finetune.weights.layouts import KNOWN, Layout

ROOT = Path(__file__).resolve().parents[1]
_YAML = Path("DeepfakeBench/training/config/detector/effort_finetune.yaml")
SCHEMA = Path("plugin/effort_finetune/config/settings.schema.json")


def _table(heading: str, rows: Iterable[Iterable[str]]) -> str:
    names = heading.split(" | ")
    cells = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _augmentations() -> str:
    return _table(
        "step | keys of `data_aug`",
        ((step.STEP, ", ".join(f"`{name}`" for name in step.model_fields)) for step in STEPS),
    )


def _layouts() -> str:
    return _table("layout | its keys | for example", map(_layout, KNOWN))


def _layout(layout: Layout) -> tuple[str, str, str]:
    head = f", `{layout.head}*`" if layout.head else ""
    tower = f"`{layout.tower}*`" if layout.tower else "without a prefix"
    return f"`{layout.name}`", f"{tower}{head}", layout.example


def _metrics() -> str:
    return _table(
        "key | name | what it is | better | interval",
        (
            (
                f"`{m.name}`",
                m.title,
                m.meaning,
                m.direction,
                m.interval if m.has_interval else f"none: {m.interval}",
            )
            for m in TABLE.values()
        ),
    )


def _problems() -> str:
    return _table(
        "what goes wrong | what to do",
        ((re.sub(r"{\w+}", "…", text) for text in (problem.what, problem.fix)) for problem in PROBLEMS),
    )


#: What the methods of benchmarks/baselines.py are in words.
_TRAINED = {
    "head": "head",
    "layernorm": "layer norms",
    "bitfit": "biases (BitFit)",
    "lora1": "LoRA, rank 1",
    "lora8": "LoRA, rank 8",
    "dora8": "DoRA, rank 8",
    "k1": "residuals as they are, k = 1",
    "k1_anew": "residuals, k = 1",
    "k2": "residuals, k = 2",
    "k4": "residuals, k = 4",
    "k8": "residuals, k = 8",
    "k16": "residuals, k = 16",
    "osf16": "residuals, k = 16, projected (OSF)",
    "full": "everything",
}


def _baselines(tower: str) -> str:
    """The table of what can be trained, from what benchmarks/baselines.py measured on a tower."""
    made = read_json(ROOT / "benchmarks" / "results" / "baselines.json")["towers"][tower]
    rows = []
    if start := made.get("before"):  # a plain CLIP has no head, and nothing to score before
        scores = (f"{start[kind]:.3f}" for kind in ("in_domain", "out_of_domain", "old"))
        rows.append(("nothing", "", *scores, "", "", "", ""))
    for name, row in made["table"].items():
        scores = (row[kind] for kind in ("in_domain", "out_of_domain", "old"))
        rows.append(
            (
                _TRAINED[name],
                f"{row['trainable']:,} ({100 * row['share']:.3g} %)",
                *(f"{s['mean']:.3f}" + ("" if s["sd"] is None else f" ± {s['sd']:.3f}") for s in scores),
                f"{row['rate']:g}",
                f"{row['seconds']:.0f}",
                f"{row['memory_mib']:.0f}",
                str(row["seeds"]),
            )
        )
    seconds = "s" if "accelerator" in made.get("machine", {}) else "CPU s"
    return _table(
        f"trained | values | in domain | out of domain | old set | rate | {seconds} | MiB | seeds",
        rows,
    )


def _data_aug() -> str:
    """The lines of ``data_aug`` in the settings file that ships."""
    lines = []
    for step in STEPS:
        for name, field in step.model_fields.items():
            value = in_yaml(field.get_default(call_default_factory=True))
            lines.append(f"  {f'{name}: {value}':<31} # {field.description}")
    return "\n".join(lines)


#: The name of a block to the Markdown that it holds.
BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": settings.table,
    "aliases": settings.aliases_table,
    "augmentations": _augmentations,
    "layouts": _layouts,
    "problems": _problems,
    "metrics": _metrics,
    "baselines": partial(_baselines, "demo"),
    "baselines_clip": partial(_baselines, "clip"),
}
_DATA_AUG = re.compile(r"(?<=^  # made by `make generate`\n)(.*?)(?=^  extra:)", re.S | re.M)
_BLOCK = re.compile(r"(?<=^<!-- generated: )(\w+)( -->\n)(.*?)(?=^<!-- end -->$)", re.S | re.M)


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Returns every file that holds something generated, with the text it should have.

    Args:
        root: Of the repository.

    Raises:
        KeyError: If a page names a block that is not in :data:`BLOCKS`.
    """
    shipped = (root / _YAML).read_text(encoding="utf-8")
    files = {
        root / SCHEMA: json_schema.as_text(),
        root / _YAML: _DATA_AUG.sub(lambda _: _data_aug() + "\n", shipped),
    }
    for page in sorted((root / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _BLOCK.search(text):
            files[page] = _BLOCK.sub(lambda block: f"{block[1]}{block[2]}\n{BLOCKS[block[1]]()}\n\n", text)
    return files


def main() -> int:
    """Writes the files, or says which are out of date."""
    parser = argparse.ArgumentParser(description="write what is made from the code's tables")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is old")
    check = parser.parse_args().check
    old = {path: text for path, text in generated().items() if path.read_text(encoding="utf-8") != text}
    for path, text in old.items():
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    raise SystemExit(main())
