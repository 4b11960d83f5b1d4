from __future__ import annotations

import pytest
import torch

from effort_finetune.core import precision as precision_file
from effort_finetune.core.device import describe_memory, device_name, is_out_of_memory, memory_report
from effort_finetune.core.errors import UserError
from effort_finetune.core.precision import resolve_precision

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    ("device", "native_bf16", "capability", "expected"),
    [
        (CPU, True, None, "bf16"),
        (CPU, False, None, "float32"),
        (CUDA, True, (8, 0), "bf16"),
        (CUDA, False, (7, 5), "fp16"),
        (CUDA, False, (6, 1), "float32"),
        (MPS, False, None, "float32"),
    ],
)
def test_auto_takes_what_the_hardware_has(monkeypatch, device, native_bf16, capability, expected):
    monkeypatch.setattr(precision_file, "has_native_bf16", lambda device: native_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = resolve_precision("auto", device)
    assert chosen.name == expected
    assert chosen.reason.startswith("auto: ")
    assert chosen.to_dict()["autocast"] == (expected != "float32")


@pytest.mark.parametrize(("asked", "enabled"), [("float32", False), ("bf16", False), ("fp16", True)])
def test_only_fp16_scales_gradients(monkeypatch, asked, enabled):
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    assert resolve_precision(asked, CUDA).make_scaler().is_enabled() == enabled


@pytest.mark.parametrize(("asked", "device"), [("fp16", CPU), ("fp16", MPS), ("float16", CPU)])
def test_what_cannot_train_is_refused(asked, device):
    with pytest.raises(UserError, match="precision"):
        resolve_precision(asked, device)


def test_bf16_on_mps_is_tried_first():
    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS: what it answers depends on the system's version")
    with pytest.raises(UserError, match="--precision float32"):
        resolve_precision("bf16", MPS)


def test_emulated_bf16_is_allowed_and_said(monkeypatch):
    monkeypatch.setattr(precision_file, "has_native_bf16", lambda device: False)
    assert "float32 may be faster" in resolve_precision("bf16", CPU).reason


def test_autocast_context_is_fresh_each_time():
    chosen = resolve_precision("bf16", CPU)
    weight = torch.ones(2, 2)
    for _ in range(2):
        with chosen.autocast():
            assert (weight @ weight).dtype == torch.bfloat16
    assert (weight @ weight).dtype == torch.float32


def test_memory_of_a_cpu_is_the_process():
    report = memory_report(CPU)
    assert set(report) == {"allocated_gib", "peak_gib", "total_gib", "resident_gib", "host_peak_gib"}
    assert report["total_gib"] is None
    assert report["peak_gib"] == report["host_peak_gib"] > 0.01
    assert describe_memory(CPU).startswith("resident ")
    assert device_name(CPU).startswith("CPU, ")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_is_told_apart(error, expected):
    assert is_out_of_memory(error) == expected
