"""Makes the small pictures of README: the local page with files on it, and a report.

``python -m tools.page_picture --weights FILE FILES... [--report report.html]`` starts the page on a folder of
its own, drops the files, opens the first one and photographs it with Chromium; a report as well.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tools.browser import Browser

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1000, 760
_DONE = "document.querySelectorAll('tr.row .verdict:not(.open)').length"


def picture_of_page(
    weights: Path, files: Sequence[Path], output: Path, *, faces: str, dark: bool = False, width: int = WIDTH
) -> Path:
    """Photographs the page after it has judged files.

    Args:
        weights: A checkpoint.
        files: What is dropped; the first is opened.
        output: PNG that becomes a JPEG.
        faces: How pictures are cut, as ``serve --faces`` takes it.
        dark: The dark page.
        width: Of the window, in pixels.

    Raises:
        RuntimeError: If the server does not start.
    """
    with tempfile.TemporaryDirectory() as folder, Browser(width=width, height=HEIGHT, timeout=300) as browser:
        asked = {"weights": weights.absolute(), "faces": faces, "port": 0}
        words = [word for flag, value in asked.items() for word in (f"--{flag}", str(value))]
        server = subprocess.Popen(
            [sys.executable, "-m", "effort_finetune", "serve", *words],
            stdout=subprocess.PIPE, text=True, cwd=folder,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                raise RuntimeError("the server does not start")
            browser.open(found[0])
            browser.show(width, HEIGHT, dark=dark)
            browser.until("document.querySelector('#judged_by dt')")
            browser.drop(files, "#drop")
            browser.until(f"{_DONE} === {len(files)}")
            (first,) = [row for row in _state(found[0])["rows"] if row["name"] == files[0].name]
            browser.value(f"document.querySelector('[data-row=\"{first['id']}\"] .name button').click()")
            browser.until("document.querySelector('.detail .preview img')?.complete")
            browser.until("document.querySelector('.detail button.crop img.heat')?.complete")
            browser.value("document.querySelector('.detail button.crop').click()")
            browser.until("getComputedStyle(document.querySelector('.crop img.heat')).opacity === '1'")
            return small(browser.picture(output, whole=True))
        finally:
            server.terminate()
            server.wait(60)


def picture_of_report(report: Path, output: Path) -> Path:
    """Photographs the top of an HTML report."""
    with Browser(width=WIDTH, height=HEIGHT) as browser:
        browser.open(report.absolute().as_uri())
        return small(browser.picture(output))


def small(path: Path) -> Path:
    """Writes a photograph as JPEG: a repository keeps every version of it."""
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_suffix(".jpg"), quality=88, optimize=True)
    path.unlink()
    return path.with_suffix(".jpg")


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", help="pictures and videos for the page")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--faces", default="auto")
    parser.add_argument("--report", type=Path, help="an HTML report")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "pictures", help="folder (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if bool(args.files) != bool(args.weights):
        parser.error("the page needs --weights and files")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.files:
        page = args.output / "page.png"
        print(
            picture_of_page(
                args.weights, args.files, page, faces=args.faces, dark=args.dark, width=args.width
            )
        )
    if args.report:
        print(picture_of_report(args.report, args.output / "report.png"))
    return 0


def _state(address: str) -> dict:
    with urllib.request.urlopen(f"{address}state", timeout=30) as answer:
        return dict(json.loads(answer.read()))


if __name__ == "__main__":
    raise SystemExit(main())
