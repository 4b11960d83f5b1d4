import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from effort_finetune.svd import cache as svd_cache
from effort_finetune.svd import decompose as svd


@pytest.fixture
def weight():
    return torch.randn(80, 80)


@pytest.fixture
def counted(monkeypatch):
    """Counts the decompositions that are really computed."""
    calls = []
    compute = svd.smallest_triplets
    monkeypatch.setattr(svd, "smallest_triplets", lambda w, k: calls.append(k) or compute(w, k))
    return calls


def only_file():
    (path,) = svd_cache.cache_dir().iterdir()
    return path


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("main", "U", "S", "V"))


def test_second_start_computes_nothing(weight, counted):
    first = svd_cache.cached_split(weight, 2)
    second = svd_cache.cached_split(weight.clone(), 2)
    assert counted == [2]
    assert same(first, second)
    assert same(first, svd.split(weight, 2))


@pytest.mark.parametrize("size", [(40, 40), (80, 80), (80, 40)])
def test_triplets_lie_in_memory_as_those_that_are_read_back(size):
    """A product of two columns may differ in its last bit by their order: a warm cache must not show."""
    matrix = torch.randn(*size)
    computed, read = svd_cache.cached_triplets(matrix, 2), svd_cache.cached_triplets(matrix, 2)
    for name in ("U", "S", "V"):
        first, second = getattr(computed, name), getattr(read, name)
        assert torch.equal(first, second)
        assert first.stride() == second.stride()


def test_key_tells_content_rank_shape_and_dtype_apart(weight):
    other = weight.clone()
    other[3, 4] += 1e-6
    keys = {
        svd_cache.content_key(weight, 1),
        svd_cache.content_key(weight, 2),
        svd_cache.content_key(other, 1),
        svd_cache.content_key(weight.reshape(40, 160), 1),
        svd_cache.content_key(weight.view(torch.int32).view(torch.float32).double(), 1),
    }
    assert len(keys) == 5
    assert svd_cache.content_key(weight.T, 1) == svd_cache.content_key(weight.T.contiguous(), 1)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "shape", "values", "keys"])
def test_damaged_entry_is_computed_anew(weight, counted, damage, caplog):
    good = svd_cache.cached_split(weight, 2)
    path = only_file()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "garbage":
        path.write_bytes(b"not a tensor file")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        tensors = load_file(path)
        if damage == "shape":
            tensors["S"] = tensors["S"][:1].clone()
        elif damage == "values":
            tensors["U"][0, 0] += 0.1
        else:
            del tensors["V"]
        save_file(tensors, path)
    assert same(svd_cache.cached_split(weight, 2), good)
    assert len(counted) == 2
    assert "computed anew" in caplog.text
    svd_cache.cached_split(weight, 2)
    assert len(counted) == 2, "the damaged entry was not replaced"


def test_folder_that_cannot_be_written(weight, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert same(svd_cache.cached_split(weight, 1), svd.split(weight, 1))
    assert "not cached" in caplog.text


def test_many_threads_share_the_folder(weight):
    results = []

    def work():
        results.append(svd_cache.cached_split(weight, 2))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(same(result, results[0]) for result in results)
    assert only_file().suffix == ".safetensors", "a temporary file was left behind"
