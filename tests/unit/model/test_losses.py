import pytest
import torch

from effort_finetune.config import Loss
from effort_finetune.core.errors import UserError
from effort_finetune.model import losses

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0])


def by_hand(weights=(1.0, 1.0), smoothing=0.0):
    log_p = LOGITS.log_softmax(dim=1)
    total = 0.0
    for row, label in zip(log_p, LABELS, strict=True):
        for c in (0, 1):
            target = (1 - smoothing) * (label == c) + smoothing / 2
            total -= weights[c] * target * row[c]
    return total / sum(weights[label] for label in LABELS)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_loss_by_hand(weights, smoothing):
    got = losses.classification_loss(
        LOGITS, LABELS, class_weights=torch.tensor(weights), label_smoothing=smoothing
    )
    torch.testing.assert_close(got, by_hand(weights, smoothing))


def test_low_precision_logits_are_widened():
    got = losses.classification_loss(LOGITS.bfloat16(), LABELS)
    assert got.dtype == torch.float32


def test_per_class_losses_leave_out_the_absent_class():
    both = losses.per_class_losses(LOGITS, LABELS)
    log_p = LOGITS.log_softmax(dim=1)
    torch.testing.assert_close(both["real"], -(log_p[0, 0] + log_p[2, 0]) / 2)
    torch.testing.assert_close(both["fake"], -log_p[1, 1])
    assert set(losses.per_class_losses(LOGITS[:1], LABELS[:1])) == {"real"}
    assert set(losses.per_class_losses(LOGITS[1:2], LABELS[1:2])) == {"fake"}


def test_balanced_weights_give_both_classes_the_same_say():
    weights = losses.balanced_class_weights(300, 100)
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 2.0]))
    assert 300 * weights[0] == pytest.approx(100 * weights[1].item())
    with pytest.raises(ValueError, match="both classes"):
        losses.balanced_class_weights(0, 5)


def test_combine_weighs_the_terms():
    terms = {"orth": torch.tensor(2.0), "ksv": torch.tensor(3.0)}
    total = losses.combine(torch.tensor(1.0), terms, Loss(orth_weight=0.5, ksv_weight=0.1))
    assert total.item() == pytest.approx(1 + 1 + 0.3)


# The detector's side of the contract.


def test_every_term_is_reported_detached_and_sums_to_overall(make_detector, batch):
    detector = make_detector(loss={"orth_weight": 0.5, "ksv_weight": 2.0})
    with torch.no_grad():
        for name, p in detector.named_parameters():
            if name.endswith("residual"):
                p += 0.1
    terms = detector.get_losses(batch, detector(batch))
    assert set(terms) == {"overall", "cls", "orth", "ksv", "real", "fake"}
    assert terms["overall"].requires_grad
    assert not any(t.requires_grad for name, t in terms.items() if name != "overall")
    assert terms["orth"] > 0
    assert terms["ksv"] > 0
    expected = terms["cls"] + 0.5 * terms["orth"] + 2 * terms["ksv"]
    torch.testing.assert_close(terms["overall"].detach(), expected)


def test_regularisers_pull_the_residual_back(make_detector, batch):
    detector = make_detector(loss={"orth_weight": 1.0, "ksv_weight": 1.0})
    residual = [p for n, p in detector.named_parameters() if n.endswith("residual")]
    with torch.no_grad():
        for p in residual:
            p += 0.1 * torch.randn_like(p)
    optimizer = torch.optim.Adam(residual, lr=1e-2)
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        terms = detector.regulariser(detector.backbone)
        sum(terms.values()).backward()
        optimizer.step()
        history.append({name: t.item() for name, t in terms.items()})
    for name in ("orth", "ksv"):
        assert history[-1][name] < 0.5 * history[0][name]


def test_default_loss_is_the_released_codes(make_detector, batch):
    detector = make_detector()
    predictions = detector(batch)
    terms = detector.get_losses(batch, predictions)
    assert set(terms) == {"overall", "cls", "real", "fake"}
    expected = torch.nn.functional.cross_entropy(predictions["cls"], batch["label"])
    assert torch.equal(terms["overall"], expected)


def test_evaluation_holds_no_graph_although_gradients_are_on(make_detector, batch):
    detector = make_detector(loss={"orth_weight": 1.0, "ksv_weight": 1.0}).eval()
    terms = detector.get_losses(batch, detector(batch))
    assert torch.is_grad_enabled()
    assert all(t.grad_fn is None and not t.requires_grad for t in terms.values())
    assert set(terms) == {"overall", "cls", "real", "fake"}


def test_labels_above_one_are_fake(make_detector, batch):
    detector = make_detector()
    predictions = detector(batch)
    many = {**batch, "label": torch.tensor([0, 3, 2, 0])}
    assert torch.equal(
        detector.get_losses(many, predictions)["overall"],
        detector.get_losses(batch, predictions)["overall"],
    )


def test_one_class_in_a_batch_gives_numbers_only(make_detector, batch):
    detector = make_detector()
    terms = detector.get_losses({**batch, "label": torch.ones(4).long()}, detector(batch))
    assert set(terms) == {"overall", "cls", "fake"}
    assert all(torch.isfinite(t) for t in terms.values())


def test_balanced_weights_come_from_the_trainer(make_detector, batch):
    detector = make_detector(loss={"class_weights": "balanced"})
    predictions = detector(batch)
    with pytest.raises(UserError, match="balanced.*no class counts"):
        detector.get_losses(batch, predictions)
    detector.set_class_counts(3, 1)
    expected = torch.nn.functional.cross_entropy(
        predictions["cls"], batch["label"], weight=torch.tensor([4 / 6, 2.0])
    )
    torch.testing.assert_close(detector.get_losses(batch, predictions)["overall"], expected)


def test_class_weights_and_smoothing_reach_the_loss(make_detector, batch):
    detector = make_detector(loss={"class_weights": [1.0, 4.0], "label_smoothing": 0.1})
    predictions = detector(batch)
    expected = torch.nn.functional.cross_entropy(
        predictions["cls"], batch["label"], weight=torch.tensor([1.0, 4.0]), label_smoothing=0.1
    )
    assert torch.equal(detector.get_losses(batch, predictions)["overall"], expected)
