import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from effort_finetune.core.metrics import batch_metrics


def test_known_batch():
    labels = torch.tensor([0, 0, 1, 1])
    p = torch.tensor([0.1, 0.6, 0.4, 0.9])
    found = batch_metrics(labels, p)
    assert found["acc"] == 0.5
    assert found["auc"] == pytest.approx(roc_auc_score(labels, p))
    assert found["ap"] == pytest.approx(average_precision_score(labels, p))
    assert found["eer"] == pytest.approx(0.5)


def test_one_class_and_non_finite_give_none():
    assert batch_metrics(torch.ones(3), torch.tensor([0.9, 0.2, 0.7])) == {
        "acc": pytest.approx(2 / 3),
        "auc": None,
        "eer": None,
        "ap": None,
    }
    assert set(batch_metrics(torch.tensor([0, 1]), torch.tensor([0.9, float("nan")])).values()) == {None}
