"""Precision, recall and F1 beside a host's own metrics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from effort_finetune.guest.host_results import with_precision_recall_f1


def theirs(y_pred, y_true, img_names=None, video_names=None):
    y_true[y_true >= 1] = 1  # upstream's writes into its argument
    return {"acc": 0.5}


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 2])), min_size=1))
def test_ratios_are_scikit_learns(rows):
    prob, label = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    result = with_precision_recall_f1(theirs)(prob, label.copy(), img_names=[])
    called, fake = prob > 0.5, label >= 1
    expected = {
        "precision": precision_score(fake, called, zero_division=np.nan),
        "recall": recall_score(fake, called, zero_division=np.nan),
        "f1": f1_score(fake, called, zero_division=np.nan),
    }
    assert {name: result[name] for name in expected if name in result} == pytest.approx(
        {name: value for name, value in expected.items() if not np.isnan(value)}
    )
    assert result["acc"] == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda f, p, y: f(p, y, ["a"]),
        lambda f, p, y: f(y_true=y, y_pred=p, img_names=["a"]),
        lambda f, p, y: f(p, y_true=y, video_names=["v"]),
        lambda f, p, y: f(p[:, None], y),
    ],
)
def test_scores_and_labels_are_found_by_name(call):
    prob, label = np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 0, 1, 0])
    result = call(with_precision_recall_f1(theirs), prob, label)
    assert (result["precision"], result["recall"], result["f1"]) == (0.5, 0.5, 0.5)


def test_what_is_not_known_stays_as_it_is():
    prob, label = np.array([0.9]), np.array([1])
    assert with_precision_recall_f1(lambda y_pred, y_true: (0.5, 0.25))(prob, label) == (0.5, 0.25)
    assert with_precision_recall_f1(lambda scores, labels: {"a": 1})(prob, label) == {"a": 1}
    assert with_precision_recall_f1(lambda y_pred, y_true: {"f1": 7})(prob, label)["f1"] == 7
    assert with_precision_recall_f1(theirs).without_effort_finetune is theirs


def test_the_host_object_returns_what_the_host_returns(host_root):
    from effort_finetune.host import open_host
    from effort_finetune.install.installation import plan_install
    from effort_finetune.install.writing import execute

    arguments = (np.array([0.1, 0.9]), np.array([0, 1]), ["a", "b"])
    before = open_host(host_root).get_test_metrics(*arguments)
    execute(plan_install(open_host(host_root)))
    assert open_host(host_root).get_test_metrics(*arguments).keys() == before.keys()
