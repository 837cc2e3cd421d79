"""Unfreezing inside one `model.fit` is right: what moves, when, and the moments' fate."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from training_models import small_model, splits, weights_of

from tl_keras.errors import PlanError, TrainingError
from tl_keras.training.callbacks import StagedUnfreezing, StopOnNaN
from tl_keras.training.optimizers import LayerwiseAdamW, depth_factors
from tl_keras.training.plan import Plan, Stage

PLAN = Plan(
    "test",
    (
        Stage("head", ("head",), 2, 1e-2),
        Stage("block2", ("head", "block2*"), 2, 1e-3),
        Stage("all", ("all",), 1, 1e-4, decay=0.5),
    ),
)


class _Watch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.epochs = [weights_of(self.model)]
        self.rates, self.moments = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(weights_of(self.model))
        optimizer = self.model.optimizer
        read = keras.ops.convert_to_numpy
        self.moments.append({v.path: np.array(read(v)) for v in optimizer.variables})

    def moved(self, epoch: int) -> set[str]:
        before, after = self.epochs[epoch], self.epochs[epoch + 1]
        return {path.split("/")[0] for path in after if not (before[path] == after[path]).all()}


def _fit(model, plan=PLAN, optimizer=None, epochs=None):
    data, watch = splits().train, _Watch()
    model.compile(optimizer or "adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(
        data.items.astype(np.float32), data.labels, batch_size=8, epochs=epochs or plan.epochs,
        verbose=0, callbacks=[StagedUnfreezing(plan), watch],
    )  # fmt: skip
    return watch


def test_each_stage_moves_its_own_layers_and_no_other() -> None:
    watch = _fit(small_model())
    assert [watch.moved(epoch) for epoch in range(5)] == [
        {"head_logits"}, {"head_logits"},
        {"head_logits", "block2_conv"}, {"head_logits", "block2_conv"},
        {"head_logits", "block2_conv", "block1_conv"},
    ]  # fmt: skip


def test_moments_are_kept_over_the_border_of_stages() -> None:
    watch = _fit(small_model())
    path = next(path for path in watch.moments[0] if "head_logits_kernel_momentum" in path)
    iterations = next(path for path in watch.moments[0] if path.endswith("iteration"))
    assert [int(moments[iterations]) for moments in watch.moments] == [6, 12, 18, 24, 30]
    # A fresh momentum would start from nothing; a kept one is still mostly the old one.
    before, after = watch.moments[1][path].ravel(), watch.moments[2][path].ravel()
    assert np.abs(before).max() > 0
    assert np.abs(after).max() > 0
    frozen = next(path for path in watch.moments[0] if "block1_conv_kernel_momentum" in path)
    assert [bool(np.any(moments[frozen])) for moments in watch.moments] == [False] * 4 + [True]


def test_rates_follow_warmup_and_cosine_within_each_stage() -> None:
    rates = _fit(small_model()).rates
    assert max(rates[:12]) == pytest.approx(1e-2)
    assert rates[11] < 1e-3
    assert max(rates[12:24]) == pytest.approx(1e-3)
    assert max(rates[24:]) == pytest.approx(1e-4)


def test_it_can_be_used_for_a_second_fit() -> None:
    model, callback = small_model(), StagedUnfreezing(PLAN)
    data = splits().train
    for _ in range(2):
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        before = weights_of(model)
        model.fit(data.items, data.labels, epochs=1, verbose=0, callbacks=[callback])
        after = weights_of(model)
        moved = {path for path in after if not (before[path] == after[path]).all()}
        assert moved == {"head_logits/kernel", "head_logits/bias"}


def test_an_optimizer_built_for_fewer_variables_is_refused() -> None:
    model, data = small_model(), splits().train
    for layer in model.layers[:-2]:
        layer.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.items, data.labels, epochs=1, verbose=0)
    with pytest.raises(PlanError, match="compile the model again"):
        model.fit(data.items, data.labels, verbose=0, callbacks=[StagedUnfreezing(PLAN)])


def test_rates_that_fall_with_depth_reach_the_step() -> None:
    model, data = small_model(), splits().train
    plan = Plan("deep", (Stage("all", ("all",), 1, 1e-3, decay=1e-6),))
    before = weights_of(model)
    watch = _fit(model, plan, LayerwiseAdamW(1e-3, weight_decay=0.0))
    after, start = watch.epochs[-1], before
    assert len(data) == 48
    change = {path: np.abs(after[path] - start[path]).max() for path in after}
    assert change["head_logits/kernel"] > 1e-4
    assert change["block2_conv/kernel"] < 1e-7
    assert depth_factors([["a"], ["b"]], 0.5) == {"a": 0.25, "b": 0.5}


def test_a_loss_that_is_no_number_ends_training_at_once() -> None:
    model, data = small_model(), splits().train
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    pictures = data.items.astype(np.float32)
    pictures[0] = np.nan
    with pytest.raises(TrainingError, match="loss is nan"):
        model.fit(pictures, data.labels, epochs=5, verbose=0, callbacks=[StopOnNaN()])


def test_a_layerwise_optimizer_survives_saving(tmp_path) -> None:
    optimizer = LayerwiseAdamW(1e-3, {"block1_conv": 0.5})
    again = LayerwiseAdamW.from_config(optimizer.get_config())
    assert again.factors == {"block1_conv": 0.5}
