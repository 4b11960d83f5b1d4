import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.data.frames import open_frames
from effort_finetune.data.index import SplitCount, available_datasets, available_splits, load_index

from .conftest import Bench, pair_of_groups, video


def message(bench: Bench, name: str = "UADFV", split: str = "test", **flags: Any) -> str:
    """The one line a user reads when the dataset is opened."""
    with pytest.raises(UserError) as caught:
        open_frames(bench.host, bench.settings(**flags), split=split, names=[name])
    text = str(caught.value)
    assert "\n" not in text
    assert "next: " in text
    return text


def edit(bench: Bench, change: Any, name: str = "UADFV") -> None:
    path = bench.root / "json" / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_unknown_dataset_suggests_near_names(bench: Bench) -> None:
    for name in ("UADFV", "Celeb-DF-v2"):
        bench.write(pair_of_groups(), name=name)
    assert "did you mean Celeb-DF-v2?" in message(bench, "CelebDF-v2")
    assert available_datasets(bench.host, bench.settings()) == ["Celeb-DF-v2", "UADFV"]


def test_unknown_dataset_without_neighbours_lists_what_there_is(bench: Bench) -> None:
    bench.write(pair_of_groups())
    assert "expected one of: UADFV" in message(bench, "ImageNet")


def test_missing_json_folder(bench: Bench) -> None:
    assert "folder of the dataset JSON files not found" in message(bench, dataset_json_folder="nowhere")


@pytest.mark.parametrize(
    ("text", "words"), [("{", "cannot be read"), ('{"Other": {}}', "top level ['Other']")]
)
def test_corrupt_json(bench: Bench, text: str, words: str) -> None:
    (bench.root / "json").mkdir()
    (bench.root / "json" / "UADFV.json").write_text(text)
    assert words in message(bench)


def test_label_not_in_label_dict_names_it_and_the_line_to_add(bench: Bench) -> None:
    bench.write([video("Mine_Real", "0"), video("UADFV_Fake", "0")])
    text = message(bench, label_dict={"Mine_real": 0})
    assert "'Mine_Real'" in text
    assert "such as Mine_real" in text
    assert "`Mine_Real: 0`" in text


def test_empty_split_names_the_filled_ones(bench: Bench) -> None:
    bench.write([video("UADFV_Real", "0", "train"), video("UADFV_Fake", "0", "train")])
    assert "split 'val' of dataset 'UADFV' is empty" in message(bench, split="val")
    text = message(bench, split="test")
    assert "train (2 videos)" in text
    assert "compression" not in text, "this dataset has no such level"


def test_missing_lmdb_says_which_ones_there_are(bench: Bench) -> None:
    bench.write(pair_of_groups(), lmdb_name="UADVF")
    text = message(bench)
    assert "LMDB of dataset 'UADFV' not found" in text
    assert "there is UADVF_lmdb" in text


def test_lmdb_of_another_dataset_is_recognised_by_its_keys(bench: Bench) -> None:
    bench.write([video("UADFV_Real", "9", dataset="Other")], name="Other", lmdb_name="UADFV")
    (bench.root / "json" / "Other.json").unlink()
    good = bench.root / "lmdb" / "UADFV_lmdb"
    kept = good.rename(bench.root / "kept")
    bench.write(pair_of_groups())
    for file in good.iterdir():
        file.unlink()
    good.rmdir()
    kept.rename(good)
    text = message(bench)
    assert "holds none of the frames" in text
    assert "Other" in text
    assert "UADFV" in text


def test_damaged_lmdb(bench: Bench) -> None:
    bench.write(pair_of_groups())
    (bench.root / "lmdb" / "UADFV_lmdb" / "data.mdb").write_bytes(b"not an LMDB" * 1000)
    assert "UADFV_lmdb cannot be opened" in message(bench)


def test_missing_files(bench: Bench) -> None:
    bench.write(pair_of_groups())
    assert "none of the frames of dataset 'UADFV' is in rgb_dir" in message(bench, lmdb=False)


def test_compression_that_the_index_lacks(bench: Bench) -> None:
    bench.write([video("FF-real", "1", dataset="FF-DF", compression="c23")], name="FF-DF")
    assert "no compression 'c40', only 'c23'" in message(bench, "FF-DF", compression="c40")


def test_frame_names_without_numbers_are_ordered_by_the_numbers_in_them(bench: Bench) -> None:
    item = video("UADFV_Real", "0", frames=12)
    frames = tuple(f"UADFV\\UADFV_Real\\frames\\0\\frame_{number}.png" for number in range(12))
    bench.write([replace(item, frames=tuple(sorted(frames)))])
    settings = bench.settings(frame_num={"train": 12, "test": 12})
    dataset = open_frames(bench.host, settings, split="test", names=["UADFV"])
    assert tuple(row.path for row in dataset.rows) == frames


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"label": "UADFV_Real", "frames": ["a/0.png"]}, "is one video instead of a mapping"),
        ({"0": {"label": "UADFV_Real", "frames": "a/0.png"}}, "a list of 'frames'"),
        ({"0": {"label": 0, "frames": ["a/0.png"]}}, "label is 0"),
        ({"0": {"label": "UADFV_Real", "frames": [0]}}, "a frame path is not a text"),
        (["a/0.png"], "expected videos, got list"),
    ],
)
def test_malformed_entries_are_placed(bench: Bench, value: Any, words: str) -> None:
    bench.write(pair_of_groups())

    def spoil(content: Any) -> None:
        content["UADFV"]["UADFV_Real"]["test"] = value

    edit(bench, spoil)
    text = message(bench)
    assert "malformed at UADFV_Real/test" in text
    assert words in text


def test_available_splits_counts_what_is_listed(embedded: Bench) -> None:
    videos = [video("UADFV_Real", "0", "train", frames=3), video("UADFV_Fake", "0", "train", frames=2)]
    embedded.write([*videos, video("UADFV_Fake", "1", "test")])
    assert available_splits(embedded.host, embedded.settings(), "UADFV") == {
        "train": SplitCount(videos=2, frames=5, real=1, fake=1),
        "val": SplitCount(videos=0, frames=0, real=0, fake=0),
        "test": SplitCount(videos=1, frames=6, real=0, fake=1),
    }


def test_an_index_that_is_complete_is_read_where_it_stands(embedded: Bench, tmp_path: Path) -> None:
    embedded.write(pair_of_groups())
    index = load_index(embedded.host, embedded.settings(), "UADFV")
    assert index.path == tmp_path / "json" / "UADFV.json"
    assert [v.id for v in index.videos("val")][:2] == ["UADFV/UADFV_Real/0000", "UADFV/UADFV_Real/0001"]
