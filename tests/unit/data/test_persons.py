"""Who is in a clip, by its own name: the ways of naming that are known, and no person in two splits."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.data.perceptual_hash import BITS, NEAR, distance, look_of, mirrored, near_pairs
from effort_finetune.data.persons import by_pattern, name_rule, own_name
from effort_finetune.data.splits import Clip, split_clips

RATIOS = {"train": 0.7, "val": 0.15, "test": 0.15}


def persons_in_two_splits(names: dict[str, list[str]], of: dict[str, set[str]], **options) -> set[str]:
    clips = [Clip(name, label, (f"{label}/{name}/0.png",)) for label, own in names.items() for name in own]
    chosen, _ = split_clips(clips, ratios=RATIOS, seed=1024, **options)
    where: dict[str, set[str]] = {}
    for (_, name), split in chosen.items():
        for person in of[name]:
            where.setdefault(person, set()).add(split)
    return {person for person, splits in where.items() if len(splits) > 1}


def test_one_name_under_several_manipulations_is_one_person():
    numbers = [f"{n:03d}" for n in range(20)]
    real = [f"youtube__{n}" for n in numbers]
    fake = [f"{method}__{n}" for method in ("Deepfakes", "FaceSwap") for n in numbers]
    of = {name: {name.rpartition("__")[2]} for name in (*real, *fake)}
    assert persons_in_two_splits({"real": real, "fake": fake}, of) == set()
    assert persons_in_two_splits({"real": real, "fake": fake}, of, identity=r"(\d+)") == set()


def test_words_after_a_clips_number_are_persons():
    people = [f"{a}{b}" for a in ("col", "bid", "mer", "oba") for b in ("lins", "en", "kel", "ma", "ton")]
    real = [f"{i:02d}_{p}" for i, p in enumerate(people * 2)]
    fake = [f"{i:02d}_{a}_{b}" for i, (a, b) in enumerate(zip(people[::2], people[1::2], strict=True))]
    of = {name: set(name.split("_")[1:]) for name in (*real, *fake)}
    assert persons_in_two_splits({"real": real, "fake": fake}, of) == set()


@pytest.mark.parametrize(
    ("names", "rule", "read"),
    [
        (["id0_0000", "id1_0003", "id0_id1_0000"], "id and a number", {"id0_id1_0000": {"id0", "id1"}}),
        (["01__exit", "02__exit", "01_02__exit__AB"], "numbers before __", {"01_02__exit__AB": {"01", "02"}}),
        (["000", "003", "000_003"], "the whole name", {"000_003": {"000", "003", "000_003"}}),
        (["0000", "0001", "0000_fake"], "the whole name", {"0000_fake": {"0000", "0000_fake"}}),
        ([f"{n:02d}_{'exit'}_{w}" for n, w in product(range(4), ("room", "hall"))], "the whole name", {}),
    ],
)  # fmt: skip
def test_rules_of_names(names, rule, read):
    title, persons = name_rule(names)
    assert title.startswith(rule)
    assert {name: set(persons(name)) for name in read} == read


def test_a_pattern_sees_the_own_name_and_no_folder():
    assert own_name("c23__Deepfakes__000_003") == "000_003"
    assert own_name("c23__videos__talk") == "talk"
    assert own_name("01_02__exit_phone_room__YVGY8LOK") == "01_02__exit_phone_room__YVGY8LOK"
    assert by_pattern(own_name("c23__videos__talk"), r"(\d+)") == ("talk",)


@given(st.lists(st.binary(min_size=BITS // 8, max_size=BITS // 8), max_size=12), st.data())
def test_near_pairs_are_all_pairs_within_reach(hashes, data):
    for base in list(hashes[:3]):
        flips = data.draw(st.sets(st.integers(0, BITS - 1), max_size=NEAR + 3))
        number = int.from_bytes(base, "big")
        for bit in flips:
            number ^= 1 << bit
        changed = number.to_bytes(BITS // 8, "big")
        hashes.append(mirrored(changed) if data.draw(st.booleans()) else changed)
    wanted = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if min(distance(h, hashes[j]) for h in (hashes[i], mirrored(hashes[i]))) <= NEAR
    }
    found = set(near_pairs(hashes))
    assert found <= wanted
    # Equal hashes come as a chain, so the same groups, not the same pairs.
    assert _groups(found, len(hashes)) == _groups(wanted, len(hashes))


def test_a_photograph_is_near_its_copies_and_no_other_person():
    faces = np.load(Path(pytest.importorskip("skimage").__file__).parent / "data" / "lfw_subset.npy")[:100]
    photos = [cv2.resize((255 * face).astype(np.uint8), (100, 100)) for face in faces]
    jpeg = [cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0) for p in photos]
    half = [cv2.resize(p, (50, 50), interpolation=cv2.INTER_AREA) for p in photos]
    mirror = [cv2.flip(p, 1) for p in photos]
    hashes = [look_of(picture) for picture in (*photos, *jpeg, *half, *mirror)]
    found = set(near_pairs(hashes))
    assert {(i % 100, j % 100) for i, j in found if i % 100 != j % 100} == set()
    groups = [set(group) for group in _groups(found, 400)]
    alike = [sum({i, i + 100 * copy} <= own for own in groups for i in range(100)) for copy in (1, 2, 3)]
    assert alike[:2] == [100, 100]
    assert alike[2] >= 95  # a mirrored hash is known up to a few bits


def _groups(pairs, count):
    leader = list(range(count))
    for i, j in sorted(pairs):
        a, b = leader[i], leader[j]
        leader = [a if x == b else x for x in leader]
    return [[i for i in range(count) if leader[i] == x] for x in sorted(set(leader))]
