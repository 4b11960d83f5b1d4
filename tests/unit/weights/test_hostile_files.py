"""One flipped bit, archives that expand, tensors that are not in the file: refused, each in one line."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile

import make_layouts as golden
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.weights.hashing import sha256_and_crcs
from effort_finetune.weights.reader import read_checkpoint


def test_one_flipped_bit_is_refused_wherever_it_is(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(golden.detector(), path)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        places = [m.header_offset + 300 for m in archive.infolist() if m.file_size > 600]
    assert len(places) > 10
    for place in places[::3]:
        whole[place] ^= 1
        path.write_bytes(whole)
        with pytest.raises(UserError, match=r"damaged") as caught:
            _ = read_checkpoint(path).sha256
        assert "\n" not in str(caught.value)
        whole[place] ^= 1
    path.write_bytes(whole)
    assert read_checkpoint(path).sha256 == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, (1 << 20) + 1, 3 << 20])
def test_members_over_several_blocks_and_other_files(tmp_path, size):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in "abc":
            archive.writestr(name, os.urandom(size))
    digest, damaged = sha256_and_crcs(os.open(path, os.O_RDONLY))
    assert (digest, damaged) == (hashlib.sha256(path.read_bytes()).hexdigest(), None)
    (tmp_path / "b").write_bytes(b"x" * size)
    assert sha256_and_crcs(os.open(tmp_path / "b", os.O_RDONLY))[1] is None


def test_an_archive_that_expands_is_refused_before_it_is_read(tmp_path):
    torch.save(golden.detector(), tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(
        tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED
    ) as target:  # fmt: skip
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
        target.writestr("archive/data/bomb", bytes(64 << 20))
    with pytest.raises(UserError, match="expands to"):
        read_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_tensor_that_is_not_in_the_file_is_refused(tmp_path, dtype):
    state = golden.detector()
    state["backbone.more"] = torch.zeros(1, dtype=dtype).expand(1 << 20, 1 << 20)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match="which the file does not hold"):
        read_checkpoint(tmp_path / "a.pth")


def test_one_storage_shown_many_times_is_refused(tmp_path):
    shared = torch.zeros(1 << 20)
    torch.save({**golden.detector(), **{f"backbone.x{i}": shared for i in range(99)}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="at most 4 times"):
        read_checkpoint(tmp_path / "a.pth")


def test_no_refusal_quotes_torchs_advice(tmp_path):
    import pickle

    for number, thing in enumerate([os.system, {"a": complex}, {"a": range(3)}, [object()]]):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(pickle.dumps(thing, protocol=2))
        with pytest.raises(UserError) as caught:
            read_checkpoint(path)
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: golden.prefixed(s, "model."),
        lambda s: golden.prefixed(s, "net."),
        lambda s: golden.prefixed(s, "detector."),
        lambda s: golden.prefixed(golden.prefixed(s, "model."), "module."),
        lambda s: golden.prefixed(golden.prefixed(s, "_orig_mod."), "model."),
        lambda s: {k.replace("backbone.", "backbone._orig_mod.", 1): v for k, v in s.items()},
        lambda s: {k.replace("backbone.", "backbone.module.", 1): v for k, v in s.items()},
        lambda s: {k.replace("backbone.", "backbone.module._orig_mod.", 1): v for k, v in s.items()},
        lambda s: {"net": s},
        lambda s: {"params": s, "params_ema": s},
        lambda s: {"weights": s, "epoch": 3},
        lambda s: {"ema": s},
        lambda s: {"model_state": golden.prefixed(s, "model.")},
        lambda s: {**s, "total_ops": torch.zeros(1).double(), "head.total_params": torch.zeros(1).double()},
    ],
)
def test_wrappings_met_in_public_files_load_whole(tmp_path, wrap):
    state = golden.detector()
    torch.save(wrap(state), tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth", head_width=golden.HEAD_WIDTH)
    assert found.unexpected == []
    assert found.missing == []
    assert set(found.tensors) == set(state)
    assert all(torch.equal(found.tensors[key], state[key]) for key in state)


def test_ambiguous_ones_are_refused(tmp_path):
    state = golden.detector()
    first = next(iter(state))
    both = {**state, first.replace("backbone.", "backbone.module.", 1): state[first]}
    torch.save(both, tmp_path / "a.pth")
    with pytest.raises(UserError, match="two tensors for"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"net": state, "params": state}, tmp_path / "b.pth")
    assert read_checkpoint(tmp_path / "b.pth", head_width=golden.HEAD_WIDTH).unexpected == ["params"]
    mixed = {**golden.prefixed(state, "model."), **golden.prefixed(state, "net.")}
    torch.save(mixed, tmp_path / "c.pth")
    with pytest.raises(UserError, match="none of them in a known layout"):
        read_checkpoint(tmp_path / "c.pth")


def test_an_archive_that_claims_several_disks_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2)}, path)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    path.write_bytes(data[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2) + data[end:])
    with pytest.raises(UserError, match="directory"):
        read_checkpoint(path)
