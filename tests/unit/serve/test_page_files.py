"""What the page itself is made of: its own files alone, markup from text nowhere."""

from __future__ import annotations

import re

from effort_finetune.serve.page_routes import assets

SVG = "http://www.w3.org/2000/svg"


def test_the_page_asks_for_its_own_files_alone(visitor):
    page = visitor.client.get("/").text
    wanted = set(re.findall(r"(?:src|href)=\"(/assets/[^\"]+)\"", page))
    for name, content in assets().items():
        text = content.decode().replace(SVG, "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), name
        wanted |= {f"/assets/{found}" for found in re.findall(r"from \"\./([\w.]+)\"", text)}
    assert len(wanted) >= 9
    for path in wanted:
        answer = visitor.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].split(";")[0] in (
            "text/css",
            "text/javascript",
            "image/svg+xml",
        )


def test_names_of_files_never_become_markup():
    for name, content in assets().items():
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", content.decode()
            ), name


def test_everything_that_is_asked_has_a_name_for_screen_readers():
    page = assets()["page.html"].decode()
    for tag in re.findall(r"<(?:input|select|progress|section)\b[^>]*>", page):
        named = "aria-label" in tag
        identifier = re.search(r'id="(\w+)"', tag)
        inside_label = identifier and re.search(
            rf"<label[^>]*>(?:(?!</label>).)*id=\"{identifier[1]}\"", page, re.S
        )
        assert named or inside_label, tag
    assert '<html lang="en">' in page
    assert "<main>" in page
