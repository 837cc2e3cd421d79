"""Unfreezing inside one `model.fit` is right: what moves, when, and the moments' fate."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from training_models import nested_model, small_model, splits, weights_of

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
        return {path.split("/")[-2] for path in after if not (before[path] == after[path]).all()}


def _fit(model, plan=PLAN, optimizer=None, epochs=None, callbacks=(), **compiled):
    data, watch = splits().train, _Watch()
    model.compile(
        optimizer or "adam", "sparse_categorical_crossentropy", jit_compile=False, **compiled)
    model.fit(
        data.items.astype(np.float32), data.labels, batch_size=8, epochs=epochs or plan.epochs,
        verbose=0, callbacks=[*(callbacks or [StagedUnfreezing(plan)]), watch], shuffle=False,
    )  # fmt: skip
    return watch


class _Dies(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


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


@pytest.mark.parametrize("first", [True, False])
def test_an_interrupted_fit_resumes_to_the_same_weights_in_either_order(tmp_path, first) -> None:
    def both(place):
        ours, theirs = StagedUnfreezing(PLAN), keras.callbacks.BackupAndRestore(tmp_path / place)
        return [ours, theirs] if first else [theirs, ours]

    whole, broken, resumed = small_model(), small_model(), small_model()
    optimizer = LayerwiseAdamW(1e-3, ema_momentum=0.9, use_ema=True)
    _fit(whole, optimizer=optimizer, callbacks=both("whole"))
    with pytest.raises(KeyboardInterrupt):
        _fit(broken, optimizer=LayerwiseAdamW.from_config(optimizer.get_config()),
             callbacks=[*both("broken"), _Dies()])
    _fit(resumed, optimizer=LayerwiseAdamW.from_config(optimizer.get_config()),
         callbacks=both("broken"))
    for path, value in weights_of(whole).items():
        np.testing.assert_array_equal(weights_of(resumed)[path], value, err_msg=path)


def test_training_ends_with_the_plan_and_says_so(caplog) -> None:
    watch = _fit(small_model(), epochs=9)
    assert len(watch.epochs) == 1 + PLAN.epochs
    assert "training ends with the plan" in caplog.text


def test_layers_learn_at_their_own_rate_under_scaled_losses() -> None:
    plan = Plan("deep", (Stage("all", ("all",), 1, 1e-3, decay=1e-6),))
    optimizer = keras.optimizers.LossScaleOptimizer(LayerwiseAdamW(1e-3, weight_decay=0.0))
    watch = _fit(small_model(), plan, optimizer)
    start, end = watch.epochs[0], watch.epochs[-1]
    change = {path: np.abs(end[path] - start[path]).max() for path in end}
    assert change["head_logits/kernel"] > 1e-4
    assert change["block2_conv/kernel"] < 1e-7


@pytest.mark.parametrize(("optimizer", "compiled", "data", "said"), [
    (keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)), {}, {}, "a schedule"),
    ("adam", {"steps_per_execution": 2}, {}, "steps_per_execution=1"),
    ("adam", {}, {"unknown": True}, "steps_per_epoch=N"),
    ("adam", {}, {"initial_epoch": 5, "epochs": 6}, "behind the 5 epochs"),
])
def test_what_the_plan_cannot_be_followed_with_is_refused(optimizer, compiled, data, said) -> None:
    import tensorflow as tf

    model, some = small_model(), splits().train
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False, **compiled)
    pairs = tf.data.Dataset.from_tensor_slices((some.items, some.labels)).batch(8)
    pairs = pairs.filter(lambda x, y: True) if data.pop("unknown", False) else pairs
    with pytest.raises(PlanError, match=said):
        model.fit(pairs, verbose=0, callbacks=[StagedUnfreezing(PLAN)], **data)


def test_a_dataset_of_unknown_length_takes_the_number_of_its_batches() -> None:
    import tensorflow as tf

    model, some, watch = small_model(), splits().train, _Watch()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    pairs = tf.data.Dataset.from_tensor_slices((some.items, some.labels)).batch(8)
    callbacks = [StagedUnfreezing(PLAN, steps_per_epoch=6), watch]
    model.fit(pairs.filter(lambda x, y: True), epochs=5, verbose=0, callbacks=callbacks)
    assert watch.rates == _fit(small_model()).rates


@pytest.mark.parametrize("kind", ["sequential", "functional", "twice"])
def test_a_base_within_the_model_is_unfrozen_layer_by_layer(kind) -> None:
    plan = Plan("nested", (Stage("head", ("head",), 1, 1e-2), Stage("top", ("head", "blocks:1"),
                                                                    1, 1e-2)))
    model = nested_model(kind)
    watch = _fit(model, plan)
    assert [watch.moved(epoch) for epoch in (0, 1)] == [{"out"}, {"out", "block2_conv"}]


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
