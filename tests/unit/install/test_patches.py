"""Blocks go in at the top or the end of a file and come out without a trace."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host.marked_blocks import find_blocks, strip
from effort_finetune.install.patches import Misfit, Patch, insert, load_patches

TOP = Patch("f.py", "top", ("import x", "x.y()"), "nothing")
END = Patch("f.py", "end", ("w = 4",), "nothing")
BLOCK = b"# >>> effort-finetune\nimport x\nx.y()\n# <<< effort-finetune\n"


@pytest.mark.parametrize(
    ("above", "below"),
    [
        (b"", b"import os\n"),
        (b"#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# who wrote it\n\n", b"import os\n"),
        (b'"""A docstring\nof two lines."""\n', b"\n# a comment\nimport os\n"),
        (b'"""A docstring."""\nfrom __future__ import annotations\n', b"import os\n"),
        (b"from __future__ import (\n    annotations,\n    division,\n)\n", b"\n\ndef f():\n    pass\n"),
        (b"# only comments\n", b""),
        (b"\xef\xbb\xbf", b"import os\n"),
        (b"# a\x0cform feed and \xc2\x85\n", b"import os\n"),
        (b"", b"@decorated(\n    1)\ndef f(): pass\n"),
    ],
)
def test_the_top_is_before_the_first_statement(above, below):
    comment = b"\n# a comment\n" if below.startswith(b"\n# a comment") else b""
    blank = b"\n\n" if below.startswith(b"\n\n") else b""
    kept = comment or blank
    patched = insert(above + below, TOP)
    assert patched == above + kept + BLOCK + below[len(kept) :]
    assert strip(patched) == above + below


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"def f(:\n", r"does not parse \(line 1"),
        (b'"""doc"""; import os\n', "line 1 holds two statements"),
        (b"a = 1\rb = 2\n", "carriage returns"),
        (b"a = '\x00'\n", "does not parse"),
        (b"print 'two'\n", "does not parse"),
    ],
)
def test_what_cannot_hold_a_block_says_why(content, why):
    with pytest.raises(Misfit, match=why):
        insert(content, TOP)


def test_a_block_that_needs_a_name_is_not_put_where_it_is_not_defined():
    patch = Patch("f.py", "end", ("f = g(f)",), "nothing", needs="f")
    assert strip(insert(b"def f():\n    pass\n", patch)) == b"def f():\n    pass\n"
    insert(b"if True:\n    from elsewhere import f\n", patch)
    with pytest.raises(Misfit, match="defines no f"):
        insert(b"# def f():\ng = 1\n", patch)


def test_end_of_a_file_without_a_final_newline_gives_none_either():
    patched = insert(b"a = 1\nlast", END)
    assert patched.endswith(b"last\n# >>> effort-finetune\nw = 4\n# <<< effort-finetune")
    assert strip(patched) == b"a = 1\nlast"


def test_text_appended_after_the_last_block_stays_on_its_own_line():
    assert strip(insert(b"a = 1\nlast", END) + b"\nmine = 1\n") == b"a = 1\nlast\nmine = 1\n"


@given(
    lines=st.lists(
        st.sampled_from(
            b"a = 1|| |# \xe2\x80\xa8|b = '''|'''|if a:|  c()|\"d\"|\t|import os; import sys|"
            b"from __future__ import annotations|# >>> something else".split(b"|")
        )
    ),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    final=st.booleans(),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_strip_undoes_insert_byte_for_byte_and_the_result_parses(lines, ending, final, mark):
    content = mark + ending.join(lines) + (ending if final and lines else b"")
    for patch in (TOP, END):
        try:
            patched = insert(content, patch)
        except Misfit:
            continue
        assert patched != content
        assert strip(patched) == content
        assert [block.text for block in find_blocks(patched)] == [patch.lines]
        tree = ast.parse(patched)
        first = ast.parse(content).body
        if patch is TOP:
            position = [ast.unparse(node) for node in tree.body].index("import x")
            assert all(
                isinstance(node, ast.Expr) or getattr(node, "module", "") == "__future__"
                for node in first[:position]
            )


@pytest.mark.parametrize(
    "content",
    [
        b"# >>> effort-finetune: one\nx\n",
        b"x\n# <<< effort-finetune\n",
        b"# >>> effort-finetune\n# >>> effort-finetune: two\n# <<< effort-finetune\n",
    ],
)
def test_a_marker_without_partner_is_refused(content):
    with pytest.raises(UserError, match="no partner"):
        strip(content)


def test_blocks_of_version_1_come_out_too():
    content = b"a\n    # >>> effort-finetune: enter\n    x = 1\n    # <<< effort-finetune\nb\n"
    assert strip(content) == b"a\nb\n"
    assert [(block.name, block.text) for block in find_blocks(content)] == [("enter", ("x = 1",))]


def test_the_shipped_blocks_do_nothing_without_the_plugin():
    patches = load_patches(resources.blocks())
    assert [patch.file for patch in patches] == [
        "training/metrics/utils.py",
        "training/test.py",
        "training/train.py",
        "training/detectors/__init__.py",
    ]
    for patch in patches[:3]:
        assert patch.lines[:2] == ("import importlib.util", "if importlib.util.find_spec('effort_finetune'):")
        assert len(patch.lines) == 4


def test_a_mistake_in_the_file_of_blocks_is_an_error_of_ours(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("- {file: a, where: beside, lines: b, lost: c}\n")
    with pytest.raises(ValueError, match="top or end"):
        load_patches(path)
