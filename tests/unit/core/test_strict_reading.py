"""YAML and JSON that would lose a value, or the machine's memory, in silence."""

from __future__ import annotations

import json
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.config import resolve
from effort_finetune.core.errors import UserError
from effort_finetune.core.strict_json import MOST_JSON_BYTES, parse_json, read_json
from effort_finetune.core.strict_yaml import MOST_BYTES, MOST_VALUES, parse_yaml, read_yaml
from effort_finetune.evaluate import results
from effort_finetune.evaluate.compared_runs import read_run
from effort_finetune.evaluate.foreign_scores import Columns, read_foreign
from effort_finetune.evaluate.score_file import read_scores

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(TREES)
def test_what_has_no_doubles_is_read_as_ever(tree):
    assert parse_yaml(yaml.safe_dump(tree), "it") == tree
    assert parse_json(json.dumps(tree), "it") == tree


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("optimizer: {lr: 1}\nnEpochs: 2\noptimizer: {lr: 3}\n", "optimizer", "1 and 3"),
        ("label_dict:\n  A_Real: 0\n  A_Fake: 1\n  A_Real: 1\n", "A_Real", "2 and 4"),
        ("deep: [{a: 1,\n a: 2}]\n", "a", "1 and 2"),
    ],
)
def test_a_key_with_two_values_is_named_with_both_lines(text, key, lines):
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "my.yaml")
    assert str(caught.value).startswith(f"my.yaml holds {key!r} twice, with two values; got lines {lines}")


def test_all_doubles_are_told_at_once():
    with pytest.raises(UserError) as caught:
        parse_yaml("a: 1\na: 2\nb: 1\nb: 2\n", "it")
    assert len(str(caught.value).splitlines()) == 2


def test_the_same_value_twice_loses_nothing():
    assert parse_yaml("a: {x: 1}\nb: 2\na: {x: 1}\n", "it") == {"a": {"x": 1}, "b": 2}
    assert parse_json('{"a": 1, "a": 1}', "it") == {"a": 1}


def test_what_only_a_host_reads_keeps_its_last_value_as_there():
    assert parse_yaml("save_ckpt: true\nsave_ckpt: false\n", "it", ("save_ckpt",)) == {"save_ckpt": False}


def test_a_json_key_with_two_values_is_named_with_both_lines():
    with pytest.raises(UserError, match=r"'UADFV_Real' twice.*lines 2 and 4"):
        parse_json(
            '{"UADFV": {\n"UADFV_Real": {},\n"UADFV_Fake": {},\n"UADFV_Real": {"a": 1}}}', "UADFV.json"
        )


def test_a_large_json_names_the_key():
    with pytest.raises(UserError, match="'a' twice"):
        parse_json('{"a": "%s", "a": 2}' % ("x" * MOST_BYTES), "big.json")


def test_aliases_that_expand_without_end_are_refused():
    text = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    assert len(text) < 600
    with pytest.raises(UserError, match="expands to too much"):
        parse_yaml(text, "it")


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "a: " + "[" * 200 + "]" * 200, "a: [", "a: !!python/none x"]
)
def test_loops_depth_and_tags_are_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "it")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [" + "1," * MOST_VALUES + "}", "expands to too much"),
        ("a: " + "[" * 60 + "}", "nested too deeply"),
        ("- " * 60 + "}", "nested too deeply"),
    ],
)
def test_a_flood_ends_the_reading_where_it_passes_the_bound(text, why):
    with pytest.raises(UserError, match=why):  # and not the broken bracket behind it
        parse_yaml(text, "it")


@pytest.mark.parametrize(
    "number",
    ["59:" * 200 + "0.5", "9" * 5000, "2026-99-99", '!!int ""', "!!float x", "!!bool x", "!!timestamp x"],
)
def test_a_value_that_its_kind_does_not_allow_is_one_line(number):
    with pytest.raises(UserError) as caught:
        parse_yaml(f"lr: {number}", "it")
    assert len(str(caught.value).splitlines()) == 1


def test_numbers_of_base_60_stay_what_yaml_says_they_are():
    assert parse_yaml("a: 1:30\nb: 1:30.5\n", "it") == {"a": 90, "b": 90.5}


def test_a_number_of_thousands_of_digits_is_no_setting():
    with pytest.raises(UserError, match="a number of 6001 characters"):
        parse_yaml("lr: " + "59:" * 2000 + "1", "it")


def test_a_large_file_is_refused_without_reading_it_whole(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(UserError, match="too large"):
        read_yaml(path)


def test_json_that_is_nested_too_deeply_is_no_json():
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 100_000 + "]" * 100_000, "it")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    "read",
    [
        read_json,
        read_yaml,
        results.read,
        read_scores,
        lambda path: read_run(path, "a"),
        lambda path: read_foreign(path, Columns()),
        lambda path: resolve(flags={}, yaml_path=path, host_defaults={}),
    ],
)
def test_what_may_never_end_is_refused_at_once(read, kind, tmp_path):
    path = tmp_path / "endless"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises((UserError, OSError), match="a pipe or a device"):
        read(path)


def test_a_json_file_without_bound_is_refused(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(MOST_JSON_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(OSError, match="GB are too many"):
        read_json(path)
