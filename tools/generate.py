"""Writes what is made from the code's tables: the settings' JSON Schema and the marked blocks of docs/.

``make generate`` runs it. A block of a page stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``;
:data:`BLOCKS` says which table fills it. With ``--check`` nothing is written, and the exit code is 1 where
a file is out of date.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from effort_finetune.cli import settings
from effort_finetune.config import json_schema

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = Path("plugin/effort_finetune/config/settings.schema.json")
#: The name of a block to the Markdown that it holds.
BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": settings.table,
    "aliases": settings.aliases_table,
}
_BLOCK = re.compile(r"(?<=^<!-- generated: )(\w+)( -->\n)(.*?)(?=^<!-- end -->$)", re.S | re.M)


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Returns every file that holds something generated, with the text it should have.

    Args:
        root: Of the repository.

    Raises:
        KeyError: If a page names a block that is not in :data:`BLOCKS`.
    """
    files = {root / SCHEMA: json_schema.as_text()}
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
