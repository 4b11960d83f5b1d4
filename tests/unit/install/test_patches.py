"""Blocks go in beside their anchor and come out without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host.marked_blocks import find_blocks, strip
from effort_finetune.install.patches import Insertion, Patch, insert, load_patch

BEFORE = Patch("f.py", (Insertion("one", "before", r"^\s*anchor\b", ("x = 1", "y = 2")),))
AFTER = Patch("f.py", (Insertion("two", "after", r"^\s*anchor\b", ("z = 3",), indent=4),))
END = Patch("f.py", (Insertion("three", "end", r"^\s*anchor\b", ("w = 4",)),))
ALL = Patch("f.py", BEFORE.insertions + AFTER.insertions + END.insertions)


def test_before_takes_the_anchors_indentation_and_line_ending():
    assert insert(b"if a:\r\n  anchor()\r\n", BEFORE) == (
        b"if a:\r\n  # >>> effort-finetune: one\r\n  x = 1\r\n  y = 2\r\n"
        b"  # <<< effort-finetune\r\n  anchor()\r\n"
    )


def test_after_adds_the_extra_indentation():
    assert insert(b"anchor\nb\n", AFTER) == (
        b"anchor\n    # >>> effort-finetune: two\n    z = 3\n    # <<< effort-finetune\nb\n"
    )


def test_end_of_a_file_without_a_final_newline_gives_none_either():
    content = b"anchor\nlast"
    patched = insert(content, END)
    assert patched.endswith(b"last\n# >>> effort-finetune: three\nw = 4\n# <<< effort-finetune")
    assert strip(patched) == content


def test_text_appended_after_the_last_block_stays_on_its_own_line():
    patched = insert(b"anchor\nlast", END) + b"\nmine = 1\n"
    assert strip(patched) == b"anchor\nlast\nmine = 1\n"


@given(
    before=st.lists(st.sampled_from([b"a = 1", b"", b"  b", b"\xff\xfe", b"c\x0cd", b"\xe2\x80\xa8", b"\r"])),
    after=st.lists(st.sampled_from([b"a = 1", b"", b"\t", b"# >>> something else"])),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    final=st.booleans(),
)
def test_strip_undoes_insert_byte_for_byte(before, after, ending, final):
    content = ending.join([*before, b"  anchor(1)", *after]) + (ending if final else b"")
    patched = insert(content, ALL)
    assert patched != content
    assert strip(patched) == content
    assert [block.name for block in find_blocks(patched)] == ["one", "two", "three"]
    assert [block.text for block in find_blocks(patched)] == [("x = 1", "y = 2"), ("z = 3",), ("w = 4",)]


@pytest.mark.parametrize("content", [b"nothing here\n", b"anchor\nanchor\n", b""])
def test_an_anchor_that_is_absent_or_ambiguous_is_refused(content):
    with pytest.raises(UserError, match=r"f\.py does not look like"):
        insert(content, BEFORE)


@pytest.mark.parametrize(
    "content",
    [
        b"# >>> effort-finetune: one\nx\n",
        b"x\n# <<< effort-finetune\n",
        b"# >>> effort-finetune: one\n# >>> effort-finetune: two\n# <<< effort-finetune\n",
    ],
)
def test_a_marker_without_partner_is_refused(content):
    with pytest.raises(UserError, match="no partner"):
        strip(content)


def test_the_shipped_patches_hold_our_own_lines_only():
    patches = [load_patch(path) for path in resources.patches()]
    assert {patch.file for patch in patches} == {
        "training/train.py",
        "training/test.py",
        "training/metrics/utils.py",
        "training/detectors/__init__.py",
    }
    for patch in patches:
        for insertion in patch.insertions:
            assert len(insertion.lines) <= 5, "logic belongs into host/hooks.py"
            assert any("effort_finetune" in line for line in insertion.lines)


def test_a_mistake_in_a_patch_file_is_an_error_of_ours(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("file: a\ninsertions:\n- {name: n, where: beside, anchor: a, lines: b}\n")
    with pytest.raises(ValueError, match="before, after or end"):
        load_patch(path)
