"""The page in a real Chromium: 300 files dropped, the server killed in the middle and started again."""

from __future__ import annotations

import csv
import io
import signal
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `web` is not installed")
from tests.unit.serve.served import ask, served

browsers = pytest.importorskip("tools.browser", reason="pipes to a browser need a POSIX system")
FILES = 300
DONE = "document.querySelectorAll('tr.row .verdict:not(.open)').length"

pytestmark = pytest.mark.skipif(browsers.find_browser() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def dropped(tmp_path_factory) -> Path:
    """Pictures in folders, as a user drops them; one is broken, one is hidden."""
    folder = tmp_path_factory.mktemp("dropped") / "holiday"
    rng = np.random.default_rng(2)
    for number in range(FILES):
        file = folder / f"day {number % 3}" / f"{number:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        cv2.imwrite(str(file), cv2.resize(small, (240, 200), interpolation=cv2.INTER_CUBIC))
    (folder / "day 0" / "000.jpg").write_bytes(b"broken")
    (folder / ".hidden.jpg").write_bytes(b"hidden")
    return folder


def test_hundreds_of_files_survive_a_kill_in_the_middle(dropped, weights, tmp_path):
    folder = tmp_path / "page"
    with browsers.Browser(timeout=180) as browser:
        with served(folder, weights) as (server, address):
            browser.open(address)
            browser.until("document.getElementById('weights').textContent === 'effort.pth'")
            browser.drop([dropped], "#drop")
            browser.until("document.querySelector('.batch h2').textContent.includes('300 files')")
            browser.until(f"{DONE} >= 8")
            browser.until(
                "document.getElementById('progress_text').textContent.includes('of 300 files judged')"
            )
            _open_one(browser)
            server.kill()
            server.wait()
        asked = set(browser.requested())
        browser.until("!document.getElementById('trouble').hidden")
        assert "does not answer" in browser.value("document.getElementById('trouble').textContent")
        browser.events.clear()
        with served(folder, weights, "--no_heat", port=urlsplit(address).port) as (server, _):
            rows = ask(address, "state")["rows"]
            states = [row["state"] for row in rows]
            assert len(rows) == FILES
            assert states.count("done") >= 8
            assert states.count("done") < FILES, "the kill came too late to show anything"
            browser.until(f"{DONE} === {FILES}")  # the tab still has the files, and sends what is missing
            browser.until("document.getElementById('trouble').hidden")
            table = browser.value("fetch('/records.csv').then(answer => answer.text())")
            lines = list(csv.DictReader(io.StringIO(table)))
            assert len({line["file"] for line in lines}) == FILES
            assert [line["file"] for line in lines if line["status"] == "unreadable"] == [
                "holiday/day 0/000.jpg"
            ]
            _sort_and_filter(browser)
            _fold(browser)
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
            assert server.returncode == 0
        asked |= set(browser.requested())
    assert {urlsplit(one).netloc for one in asked if not one.startswith("data:")} == {
        urlsplit(address).netloc
    }
    # 409: sent once more just as it arrived, which the server answers with "it is there already".
    awaited = ("ERR_CONNECTION", "500", "409")
    assert not [said for said in browser.complaints() if not any(known in said for known in awaited)]


def _open_one(browser) -> None:
    """By the keyboard alone: to a row, into it, to its picture, and out again."""
    browser.value("document.querySelector('tr.row:not(:first-child) .name button').focus()")
    browser.press("ArrowDown")
    browser.press("Enter")
    browser.until("document.querySelector('.detail .preview img')?.naturalWidth > 0")
    browser.until("document.querySelector('.detail .crop img.heat')?.naturalWidth === 32")
    assert "Probability of fake" in browser.value("document.querySelector('.detail').textContent")
    browser.press("Escape")
    browser.until("!document.querySelector('.detail')")


def _sort_and_filter(browser) -> None:
    browser.value("document.querySelector('th button').closest('tr').children[1].firstChild.click()")
    shown = browser.value(
        "[...document.querySelectorAll('td.prob')].map(cell => cell.textContent).filter(Boolean).map(Number)"
    )
    assert shown == sorted(shown, reverse=True)
    assert browser.value("document.querySelector('th[aria-sort]').textContent") == "Fake"
    typed = "s.value = 'day 1/001'; s.dispatchEvent(new Event('input'))"
    browser.value(f"(s => {{ {typed} }})(document.getElementById('search'))")
    assert browser.value("document.querySelectorAll('tr.row').length") == 1


def _fold(browser) -> None:
    browser.value("document.querySelector('.batch h2 button').click()")
    assert (
        browser.value("document.querySelector('.batch h2 button').getAttribute('aria-expanded')") == "false"
    )
    assert browser.value("document.querySelector('table.rows').hidden")
