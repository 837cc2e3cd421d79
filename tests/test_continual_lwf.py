from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from training_models import coloured, small_model, splits

from tl_keras.continual.growing import grow
from tl_keras.continual.lwf import WithoutForgetting, distillation_loss
from tl_keras.data.splits import Splits
from tl_keras.features.backends import prefix_function
from tl_keras.training.plan import Plan, Stage
from tl_keras.training.trainer import fit

PLAN = Plan("two", (Stage("head", ("head",), 2, 1e-2), Stage("all", ("all",), 3, 1e-3)),
            batch_size=16, augment="flip", views=2)  # fmt: skip


def shares(count, classes, seed):
    values = np.random.default_rng(seed).random((count, classes)).astype(np.float32)
    return values / values.sum(1, keepdims=True)


def test_the_loss_is_that_of_the_formula():
    old, said, labels = (
        shares(5, 2, 0),
        shares(5, 3, 1),
        np.eye(3, dtype=np.float32)[[0, 2, 1, 2, 2]],
    )
    got = np.asarray(distillation_loss(3, 0.7)(np.hstack([labels, old]), said))
    plain = -np.log((labels * said).sum(1))
    soft = np.sqrt(old) / np.sqrt(old).sum(1, keepdims=True)
    now = np.sqrt(said[:, :2]) / np.sqrt(said[:, :2]).sum(1, keepdims=True)
    np.testing.assert_allclose(got, plain - 0.7 * (soft * np.log(now)).sum(1), rtol=1e-4)
    np.testing.assert_allclose(
        np.asarray(distillation_loss(3, 0.7)(labels, said)), plain, rtol=1e-4
    )


def lesson(model, data, folder, **more):
    predict = prefix_function(model, "float32")
    return WithoutForgetting(data, PLAN, model, predict, folder, seed=3, **more)


def test_the_old_outputs_are_of_the_very_view_that_is_shown(tmp_path):
    model, data = small_model(3), splits()
    indices, views = np.array([4, 9, 30]), np.array([0, 2, 1])
    targets, _ = lesson(model, data, tmp_path).batch(views, indices)
    shown = data.train.reader(model, "flip", 3).read(indices, views)["image"]
    np.testing.assert_allclose(
        targets[:, 3:], np.asarray(model(shown.astype(np.float32))), atol=1e-5
    )


def test_the_old_outputs_are_computed_once(tmp_path):
    asked = []

    def predict(batch):
        asked.append(len(batch["image"]))
        return [shares(len(batch["image"]), 3, 0)]

    data = splits()
    for _ in range(2):
        made = WithoutForgetting(data, PLAN, small_model(), predict, tmp_path)
        with ThreadPoolExecutor(3) as pool:  # as batches are fetched
            for one in [pool.submit(made.batch, np.arange(2), np.arange(2)) for _ in range(3)]:
                one.result()
    assert sum(asked) == 2 * len(data.train)


@pytest.mark.slow
def test_new_colours_are_learnt_and_the_old_answers_are_kept_better(tmp_path):
    """Only the third class is learnt; the old outputs share new pictures out as before."""
    old, all_of_them = small_model(3), coloured(90, 5)
    fit(old, Splits(coloured(90, 0), coloured(30, 1), None), _plan(8, 3e-2), seed=1)
    blue = all_of_them.labels == 2
    data = Splits(all_of_them.take(blue), all_of_them.take(blue), None)
    expected = np.asarray(old(all_of_them.items.astype(np.float32)))[:, :2]
    gaps = []
    for strength in (0.0, 5.0):
        new = grow(old, 3)
        predict = prefix_function(old, "float32")
        taught = WithoutForgetting(
            data, _plan(8, 1e-2), old, predict, tmp_path / str(strength), strength=strength
        )
        fit(new, data, _plan(8, 1e-2), seed=1, objective=taught)
        said = np.asarray(new(all_of_them.items.astype(np.float32)))[:, :2]
        ratio = said / said.sum(1, keepdims=True) - expected / expected.sum(1, keepdims=True)
        gaps.append(np.abs(ratio[blue]).mean())
    assert gaps[1] < 0.5 * gaps[0]


def _plan(epochs, rate):
    return Plan("all", (Stage("all", ("all",), epochs, rate),), batch_size=16)
