"""Nothing trivial tells real from fake: a classifier on simple statistics of a video stays near chance."""

import json

import cv2
import lmdb
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.demo import NAMES, Size, build_demo

PAIRS = 80
LIMIT = 0.65


def statistics(png):
    """Colour means and deviations, file sizes, gradient energy, entropy and quantiles of one crop."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    share = np.histogram(grey, 64, (0, 255))[0] / grey.size
    gradients = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    fine = np.log(cv2.Laplacian(grey, cv2.CV_32F).var())
    entropy = -(share * np.log(share + 1e-9)).sum()
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].size
    quantiles = np.percentile(grey, [0, 5, 25, 50, 75, 95, 100])
    return [*image.mean((0, 1)), *image.std((0, 1)), len(png), jpeg, *gradients, fine, entropy, *quantiles]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    sizes = {name: Size(train=0, val=0, test=PAIRS, frames=1) for name in NAMES}
    build_demo(root / "lmdb", root / "json", seed=1024, sizes=sizes)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_simple_statistics_do_not_tell_real_from_fake(root, name):
    index = json.loads((root / "json" / f"{name}.json").read_text())[name]
    features, labels, pairs = [], [], []
    with lmdb.open(str(root / "lmdb" / f"{name}_lmdb"), readonly=True, lock=False) as env, env.begin() as t:
        for label, group in enumerate((f"{name}_Real", f"{name}_Fake")):
            # Both groups list their videos in the same order, so the place in the list is the pair.
            for place, (video, entry) in enumerate(index[group]["test"].items()):
                png = bytes(t.get(entry["frames"][0].encode()))
                features.append([*statistics(png), int(video), place])
                labels.append(label)
                pairs.append(place)
    x, y = np.array(features), np.array(labels)
    assert len(y) == 2 * PAIRS
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        RandomForestClassifier(100, min_samples_leaf=4, random_state=0),
    ):
        folds = GroupKFold(5)  # a pair is never in both training and held-out part
        fake = cross_val_predict(model, x, y, groups=pairs, cv=folds, method="predict_proba")[:, 1]
        assert roc_auc_score(y, fake) < LIMIT, f"{name}: {type(model).__name__}"


def test_the_classifier_would_notice_a_trivial_difference():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], PAIRS)
    x = rng.normal(size=(2 * PAIRS, 20))
    x[:, 3] += 1.0 * y
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds, pairs = GroupKFold(5), np.tile(np.arange(PAIRS), 2)
    fake = cross_val_predict(model, x, y, groups=pairs, cv=folds, method="predict_proba")[:, 1]
    assert roc_auc_score(y, fake) > LIMIT
