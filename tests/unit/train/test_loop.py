from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.precision import Precision, resolve_precision
from effort_finetune.train import loop as loop_file
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.loop import Interrupted, TrainingLoop
from effort_finetune.train.sharpness import SAM

from .toys import ToyDetector, batch, joined

CPU = torch.device("cpu")


SHARP = partial(SAM, rho=0.05)


def make_loop(
    model=None, *, precision="float32", lr=0.1, optimizer=torch.optim.SGD, **options
) -> TrainingLoop:
    model = model or ToyDetector()
    made = optimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    return TrainingLoop(model, made, resolve_precision(precision, CPU), CPU, **options)


def weights(loop: TrainingLoop) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in loop.model.parameters()])


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (4, 4, 4), (4, 4, 4, 1), (3,)])
def test_accumulation_equals_large_batches(sizes):
    """Also for the incomplete last group and for batches of unequal size."""
    batches = [batch(size, seed) for seed, size in enumerate(sizes)]
    small, large = make_loop(accumulation_steps=2), make_loop()
    small.run_epoch(batches, EpochProgress(0))
    large.run_epoch([joined(batches[i : i + 2]) for i in range(0, len(batches), 2)], EpochProgress(0))
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-6, atol=1e-7)


class Weighted(ToyDetector):
    """A fake counts as much as five reals, in the mean over a batch that torch takes."""

    def class_weights(self) -> torch.Tensor:
        return torch.tensor([0.2, 1.0])

    def get_losses(self, data, predictions):
        weight = self.class_weights()
        return {"overall": torch.nn.functional.cross_entropy(predictions["cls"], data["label"], weight)}


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 5, 2)])
def test_accumulation_equals_large_batches_under_class_weights_too(sizes):
    """A mean weighted within each batch of one frame would forget the weights altogether."""
    batches = [batch(size, seed) for seed, size in enumerate(sizes)]
    for number, one in enumerate(batches):
        one["label"] = (one["label"] + number) % 2
    small, large = make_loop(Weighted(), accumulation_steps=4), make_loop(Weighted())
    small.run_epoch(batches, EpochProgress(0))
    large.run_epoch([joined(batches)], EpochProgress(0))
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sizes", [(24,), (2,) * 12, (7, 7, 7, 3)])
def test_the_logged_loss_under_class_weights_does_not_depend_on_how_a_batch_is_cut(sizes):
    """With weights [1, 9] a mean over batches of a mean within each gave .80 or .85 for the same frames."""

    class Nine(Weighted):
        def class_weights(self) -> torch.Tensor:
            return torch.tensor([1.0, 9.0])

    whole = batch(24, 5)
    whole["label"] = (torch.arange(24) % 5 == 0).long()
    parts = torch.arange(24).split(list(sizes))
    loop = make_loop(Nine(), lr=1e-12)
    keys = ("image", "label", "index")
    batches = [{**whole, **{key: whole[key][part] for key in keys}} for part in parts]
    means = loop.run_epoch(batches, EpochProgress(0)).means()
    with torch.no_grad():
        expected = loop.model.get_losses(whole, loop.model(whole))["overall"].item()
    assert means["overall"] == pytest.approx(expected, rel=1e-6)


def test_one_batch_per_epoch_trains():
    loop = make_loop()
    before = weights(loop)
    progress = loop.run_epoch([batch(2, 0)], EpochProgress(0))
    assert progress.steps == 1
    assert not torch.equal(before, weights(loop))


def test_frozen_parameters_do_not_move():
    loop = make_loop()
    loop.run_epoch([batch(4, s) for s in range(3)], EpochProgress(0))
    assert torch.equal(loop.model.frozen, torch.ones(3))


def test_loss_terms_are_means_over_their_own_frames():
    """The epoch's mean of each term is that over all its frames, not over batches."""
    batches = [batch(1, 0), batch(5, 1)]
    loop = make_loop(lr=1e-12)
    means = loop.run_epoch(batches, EpochProgress(0)).means()
    data = joined(batches)
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(loop.model(data)["cls"], data["label"], reduction="none")
    assert means["overall"] == pytest.approx(losses.mean().item(), rel=1e-6)
    assert means["real"] == pytest.approx(losses[data["label"] == 0].mean().item(), rel=1e-6)
    assert means["fake"] == pytest.approx(losses[data["label"] == 1].mean().item(), rel=1e-6)


def test_every_frame_counts_and_missing_ones_are_listed():
    batches = [batch(3, 0, missing=[7]), batch(0, 1, missing=[8, 9]), batch(2, 2)]
    progress = make_loop(accumulation_steps=2).run_epoch(batches, EpochProgress(0))
    assert (progress.samples, progress.missing, progress.batches, progress.steps) == (5, 3, 3, 2)
    assert (progress.real, progress.fake) == (3, 2)


def test_no_frame_at_all_fails():
    with pytest.raises(RunFailure, match="not one training frame"):
        make_loop().run_epoch([batch(0, 0, missing=[0, 1])], EpochProgress(0))


def test_clipping_bounds_the_step():
    free, clipped = make_loop(lr=1.0), make_loop(lr=1.0, clip_grad_norm=1e-3)
    start = weights(free)
    free.run_epoch([batch(4, 0)], EpochProgress(0))
    clipped.run_epoch([batch(4, 0)], EpochProgress(0))
    assert (weights(free) - start).norm() > 0.01
    assert (weights(clipped) - start).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_records_every_rec_iter_and_the_rest():
    records = []
    make_loop(rec_iter=2, on_record=records.append).run_epoch(
        [batch(4, s) for s in range(5)], EpochProgress(3)
    )
    assert [(r.epoch, r.batch, r.batches) for r in records] == [(3, 2, 5), (3, 4, 5), (3, 5, 5)]
    assert set(records[0].loss) == {"overall", "real", "fake"}
    assert all(math.isfinite(r.grad_norm) and r.lr == 0.1 for r in records)


def test_the_time_left_goes_by_the_whole_epoch_not_by_its_last_few_batches(monkeypatch):
    ticks = (n**2 for n in itertools.count())  # every batch takes longer than the one before
    monkeypatch.setattr(loop_file.time, "perf_counter", lambda: next(ticks))
    records, progress = [], EpochProgress(0)
    make_loop(rec_iter=2, on_record=records.append).run_epoch([batch(4, s) for s in range(3)], progress)
    assert records[-1].seconds_per_batch == progress.seconds / 3


def test_non_finite_loss_names_step_rate_and_frames_and_leaves_the_weights():
    bad = batch(2, 1)
    bad["image"][0] = float("nan")
    loop = make_loop(describe=lambda b: [f"frame-{int(i)}.png" for i in b["index"]])
    progress = EpochProgress(0)
    with pytest.raises(RunFailure, match=r"step 2 \(batches 2 to 2\).*rate 0\.1.*frame-0\.png, frame-1\.png"):
        loop.run_epoch([batch(4, 0), bad], progress)
    good = make_loop()
    good.run_epoch([batch(4, 0)], EpochProgress(0))
    assert torch.equal(weights(loop), weights(good))
    assert progress.batches == 1, "the bad batch is still owed"


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, SHARP])
def test_non_finite_gradient_is_caught_before_the_step(optimizer):
    class Spike(ToyDetector):
        def get_losses(self, data, predictions):
            losses = super().get_losses(data, predictions)
            zero = (self.head.weight * 0).sum()
            # A finite value whose gradient is 0 * inf.
            return {**losses, "overall": losses["overall"] + torch.sqrt(zero)}

    loop = make_loop(Spike(), optimizer=optimizer)
    before = weights(loop)
    with pytest.raises(RunFailure, match="gradient is not finite.*and the weights, are fine"):
        loop.run_epoch([batch(4, 0)], EpochProgress(0))
    assert torch.equal(before, weights(loop))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, SHARP])
def test_an_overflow_under_the_scaler_skips_the_step_and_is_counted(optimizer):
    loop = make_loop(optimizer=optimizer)
    loop.scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    before = weights(loop)
    large = batch(4, 0)
    large["image"] *= 100  # gradients above 1: times the scale they leave float32
    progress = loop.run_epoch([large], EpochProgress(0))
    assert torch.equal(before, weights(loop))
    assert (progress.steps, progress.skipped_steps) == (0, 1)
    assert loop.scaler.get_scale() < 3e38


def test_scaling_does_not_change_the_step():
    scaled, plain = make_loop(clip_grad_norm=0.01), make_loop(clip_grad_norm=0.01)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for loop in (scaled, plain):
        loop.run_epoch([batch(4, 0)], EpochProgress(0))
    torch.testing.assert_close(weights(scaled), weights(plain))


def test_interruption_and_continuation_equal_one_run():
    batches = [batch(4, s) for s in range(5)]
    whole = make_loop()
    whole.run_epoch(batches, EpochProgress(0))

    asked = iter([False, True])
    loop = make_loop(should_stop=lambda: next(asked))
    progress = EpochProgress(0)
    with pytest.raises(Interrupted):
        loop.run_epoch(batches, progress)
    assert progress.batches == 2
    loop.should_stop = lambda: False
    progress = EpochProgress.from_state(progress.state_dict())
    loop.run_epoch(batches, progress)
    assert torch.equal(weights(whole), weights(loop))
    assert progress.samples == 20


def test_a_dead_worker_after_ctrl_c_is_an_interruption():
    def loader(error):
        yield batch(2, 0)
        raise error

    asked = iter([False, True])
    loop = make_loop(should_stop=lambda: next(asked))
    with pytest.raises(Interrupted):
        loop.run_epoch(loader(RuntimeError("worker exited")), EpochProgress(0))
    with pytest.raises(RuntimeError, match="worker exited"):
        make_loop().run_epoch(loader(RuntimeError("worker exited")), EpochProgress(0))


def test_out_of_memory_says_what_to_do():
    class Huge(ToyDetector):
        def forward(self, data, inference=False):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(
        RunFailure, match="1 frames at once, and fewer cannot be taken; next: set activation_checkpointing"
    ):
        make_loop(Huge()).run_epoch([batch(4, 0)], EpochProgress(0))


def test_bf16_runs_the_forward_low_and_the_losses_in_float32():
    seen = {}

    class Spy(ToyDetector):
        def forward(self, data, inference=False):
            out = super().forward(data)
            seen["forward"] = out["cls"].dtype
            return out

        def get_losses(self, data, predictions):
            seen["loss"] = predictions["cls"].dtype
            return super().get_losses(data, predictions)

    loop = make_loop(Spy(), precision="bf16")
    loop.run_epoch([batch(4, 0)], EpochProgress(0))
    assert seen == {"forward": torch.bfloat16, "loss": torch.float32}
    assert loop.model.head.weight.dtype == torch.float32


def test_host_labels_above_one_are_fakes():
    plain, numbered = batch(4, 0), batch(4, 0)
    numbered["label"] = numbered["label"] * 3
    one, other = make_loop(), make_loop()
    one.run_epoch([plain], EpochProgress(0))
    other.run_epoch([numbered], EpochProgress(0))
    assert torch.equal(weights(one), weights(other))


def test_nothing_trainable_is_a_user_error():
    model = ToyDetector()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    model.head.requires_grad_(False)
    with pytest.raises(UserError, match="nothing is trainable"):
        TrainingLoop(model, optimizer, Precision("float32", "cpu", ""), CPU)
