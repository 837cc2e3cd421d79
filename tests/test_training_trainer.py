"""Stages train what they should, from features that equal the frozen layers' outputs."""

from __future__ import annotations

import numpy as np
import pytest
from training_models import nested_model, small_model, small_transformer, splits, weights_of

from tl_keras.errors import ModelError, PlanError, RunError, TrainingError
from tl_keras.models.build import build_model
from tl_keras.models.rewrite import flatten
from tl_keras.training.batchnorm import norms_of
from tl_keras.training.plan import Plan, Stage
from tl_keras.training.stage_runner import StageRunner
from tl_keras.training.trainer import fit

HEAD = Stage("head", ("head",), 4, 1e-2)
BLOCK = Stage("block2", ("head", "block2*"), 2, 1e-3)
ALL = Stage("all", ("all",), 2, 1e-3)


def _plan(*stages: Stage, **settings) -> Plan:
    return Plan("test", stages, **{"batch_size": 8, "weight_decay": 0.0, **settings})


def test_only_the_selected_layers_move_and_batchnorm_statistics_stay() -> None:
    model = small_model()
    before = weights_of(model)
    fit(model, splits(), _plan(HEAD, BLOCK))
    moved = {path for path, value in weights_of(model).items() if not (value == before[path]).all()}
    assert moved == {
        "head_logits/kernel", "head_logits/bias", "block2_conv/kernel", "block2_conv/bias"
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["sequential", "functional", "twice"])
def test_a_base_within_the_model_trains_as_if_it_were_flat(kind) -> None:
    nested = nested_model(kind)
    flat = flatten(nested)
    plan = _plan(HEAD, Stage("top", ("head", "blocks:1"), 2, 1e-3))
    before = nested.get_weights()
    results = [fit(model, splits(), plan, precision="float32") for model in (nested, flat)]
    assert results[0].stages[1]["cut"] == "block1_relu"
    for left, right in zip(nested.get_weights(), flat.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    moved = [not np.array_equal(old, new)
             for old, new in zip(before, nested.get_weights(), strict=True)]
    # First convolution and BatchNorm, then second convolution, its BatchNorm, the head.
    assert moved == [False] * 6 + [True] * 2 + [False] * 4 + [True] * 2


def test_a_transformer_trains_from_its_cached_tokens() -> None:
    model = build_model(small_transformer(), 3)
    result = fit(model, splits(), "lp-ft", precision="float32")
    head, whole = result.stages
    assert head["trainable_parameters"] == 39
    assert whole["trainable_parameters"] == model.count_params()
    assert min(row["val_loss"] for row in result.history) < result.history[0]["val_loss"]


def test_batchnorm_trains_when_the_stage_says_so() -> None:
    model = small_model()
    before = weights_of(model)
    fit(model, splits(), _plan(Stage("all", ("all",), 1, 1e-3, batchnorm="train")))
    after = weights_of(model)
    assert not np.allclose(before["block1_bn/moving_mean"], after["block1_bn/moving_mean"])


def test_statistics_of_a_slow_batchnorm_follow_a_short_training() -> None:
    plan = _plan(Stage("scratch", ("all",), 8, 1e-2, batchnorm="train"))
    trained = []
    for momentum in (0.999, 0.9):
        model = small_model()
        for norm in norms_of(model):
            norm.momentum = momentum
        history = fit(model, splits(), plan).history
        assert [norm.momentum for norm in norms_of(model)] == [momentum] * 2
        assert history[-1]["val_accuracy"] >= history[-1]["accuracy"] - 0.15
        trained.append(model.get_weights())
    for left, right in zip(*trained, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_cached_stage_equals_training_the_whole_model() -> None:
    cached, whole = small_model(), small_model()
    plan = _plan(HEAD, ema=False)
    fit(cached, splits(), plan, precision="float32")
    from tl_keras.training import stage_runner as module

    cut, module.freezing.last_frozen_cut = module.freezing.last_frozen_cut, lambda model: None
    try:
        result = fit(whole, splits(), plan)
    finally:
        module.freezing.last_frozen_cut = cut
    assert result.stages[0]["cut"] is None
    left, right = weights_of(cached), weights_of(whole)
    for path in left:
        assert np.allclose(left[path], right[path], rtol=1e-4, atol=1e-6), path


def test_each_frozen_layer_is_computed_once_for_each_view() -> None:
    seen: dict[str, int] = {}

    def progress(task: str, done: int, total: int) -> None:
        seen[task] = total

    plan = _plan(HEAD, BLOCK, Stage("head2", ("head",), 1, 1e-3), augment="affine", views=2)
    fit(small_model(), splits(), plan, progress=progress)
    features = [task for task in seen if task.startswith("features")]
    # Stage 2 starts from a cut inside stage 1's prefix and was kept from the same pass; stage 3
    # needs the whole base anew, because stage 2 changed it.
    assert sorted(features) == [
        "features, train, view 1", "features, train, view 2", "features, val, view 1"
    ]  # fmt: skip


def test_passes_over_the_base_are_counted() -> None:
    from tl_keras.features import stage_cache as features

    rows = []
    original = features.fill

    def counted(files, *rest, **more):
        done = original(files, *rest, **more)
        rows.append((done, len(files)))
        return done

    features.fill = counted
    try:
        fit(small_model(), splits(), _plan(HEAD, BLOCK, ALL))
    finally:
        features.fill = original
    # One pass for training and one for validation, each keeping both stages' features.
    assert rows == [(48, 2), (18, 2)]


def test_the_best_stage_keeps_its_weights() -> None:
    ruinous = Stage("ruin", ("all",), 2, 30.0)
    model = small_model()
    result = fit(model, splits(), _plan(HEAD, ruinous))
    assert result.best_stage == "head"
    alone = small_model()
    fit(alone, splits(), _plan(HEAD))
    left, right = weights_of(model), weights_of(alone)
    assert all((left[path] == right[path]).all() for path in left)


def test_it_learns_the_colours() -> None:
    model = small_model()
    result = fit(model, splits(), _plan(Stage("all", ("all",), 15, 1e-2, batchnorm="train")))
    assert max(row["val_accuracy"] for row in result.history) > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    def trained(seed: int) -> dict[str, np.ndarray]:
        model = small_model(dropout=0.5)
        fit(model, splits(), _plan(HEAD, augment="affine"), seed=seed)
        return weights_of(model)

    first, again, other = trained(1), trained(1), trained(2)
    assert all((first[path] == again[path]).all() for path in first)
    assert not (first["head_logits/kernel"] == other["head_logits/kernel"]).all()


def test_patience_ends_a_stage_early() -> None:
    stage = Stage("head", ("head",), 50, 10.0, patience=2, warmup=0.0)
    result = fit(small_model(), splits(), _plan(stage, ema=False))
    run = result.stages[0]
    assert run["epochs_run"] < 50
    assert run["best_epoch"] == run["epochs_run"] - 3


def test_history_has_a_row_for_each_epoch_of_each_stage() -> None:
    result = fit(small_model(), splits(), _plan(HEAD, BLOCK))
    assert [(row["stage"], row["epoch"], row["stage_epoch"]) for row in result.history] == [
        ("head", 0, 0), ("head", 1, 1), ("head", 2, 2), ("head", 3, 3),
        ("block2", 4, 0), ("block2", 5, 1),
    ]  # fmt: skip


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights() -> None:
    model = small_model()
    nan = Stage("all", ("all",), 3, 1e30, warmup=0.0)
    with pytest.raises(TrainingError, match="Try a rate of"):
        fit(model, splits(), _plan(HEAD, nan))
    assert all(np.isfinite(value).all() for value in weights_of(model).values())


def test_a_state_of_another_plan_is_refused(tmp_path) -> None:
    fit(small_model(), splits(), _plan(HEAD), state_dir=tmp_path)
    with pytest.raises(RunError, match="another plan, seed or data"):
        fit(small_model(), splits(), _plan(BLOCK), state_dir=tmp_path)


def test_a_model_with_other_outputs_is_refused() -> None:
    with pytest.raises(ModelError, match="5 outputs and the data 3"):
        fit(small_model(outputs=5), splits(), "probe")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(PlanError, match="unknown precision 'float8'"):
        fit(small_model(), splits(), _plan(HEAD), precision="float8")


@pytest.mark.parametrize("engine", ["float32", "onnxruntime"])
def test_every_engine_gives_keras_features(engine: str) -> None:
    from tl_keras.features.backends import prefix_function
    from tl_keras.models import graph

    prefix, _ = graph.split(small_model(), "head_avg_pool")
    pictures = splits().train.items[:5]
    features = prefix_function(prefix, engine)(pictures)[0]
    expected = prefix.predict(pictures.astype(np.float32), verbose=0)
    assert np.allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_the_fastest_engine_that_agrees_is_chosen() -> None:
    from tl_keras.features.backends import choose_engine
    from tl_keras.models import graph

    prefix, _ = graph.split(small_model(), "head_avg_pool")
    sample = splits().train.items[:16]
    engine, _ = choose_engine(prefix, sample, rows=1000, min_seconds=0.0)
    assert engine.rates[engine.name] == max(engine.rates.values())
    assert "onnxruntime" in engine.agreement
    assert min(engine.agreement.values()) > 0.999
    assert choose_engine(prefix, sample, rows=10, min_seconds=60.0)[0].name == "float32"


def test_a_picture_that_vanishes_while_training_is_named(tmp_path) -> None:
    from PIL import Image

    from tl_keras.data.samples import Samples
    from tl_keras.data.splits import Splits
    from tl_keras.errors import DataError

    data = splits()
    paths = tuple(str(tmp_path / f"{i}.png") for i in range(len(data.train)))
    for path, picture in zip(paths, data.train.items, strict=True):
        Image.fromarray(picture).save(path)
    train = Samples(
        paths, data.train.labels, data.train.class_names, paths, data.train.modality
    )
    (tmp_path / "7.png").unlink()
    with pytest.raises(DataError, match=r"7\.png"):
        fit(small_model(), Splits(train, data.val, None), _plan(ALL))


def test_the_model_is_left_uncompiled_so_that_it_loads_without_this_package(tmp_path) -> None:
    import subprocess
    import sys

    model = small_model()
    fit(model, splits(), _plan(ALL))
    assert not model.compiled
    model.save(tmp_path / "model.keras")
    code = (
        "import sys; sys.modules['tl_keras'] = None; import keras; "
        f"print(keras.saving.load_model({str(tmp_path / 'model.keras')!r}).count_params())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == [str(model.count_params())], done.stderr[-2000:]


def test_what_is_kept_is_the_average_of_the_weights() -> None:
    stage = Stage("head", ("head",), 1, 0.3, warmup=0.0)
    averaged, last = small_model(), small_model()
    fit(averaged, splits(), _plan(stage, ema=True))
    fit(last, splits(), _plan(stage, ema=False))
    start, end = weights_of(small_model()), weights_of(last)
    path = "head_logits/kernel"
    # An average over the steps lies nearer to the start than the last step does.
    moved = np.abs(weights_of(averaged)[path] - start[path]).sum()
    assert 0 < moved < np.abs(end[path] - start[path]).sum()


def test_a_gain_that_may_be_chance_is_averaged_with_what_was_kept(monkeypatch) -> None:
    from tl_keras.training import stage_runner as module

    monkeypatch.setattr(module, "clearly_better", lambda new, old: False)
    states = []
    keep = StageRunner._keep_if_better

    def watched(runner, trainer):
        states.append((weights_of(runner.model), trainer.val_losses().mean()))
        keep(runner, trainer)
        same = weights_of(runner.model)
        assert all((same[path] == value).all() for path, value in states[-1][0].items())

    monkeypatch.setattr(StageRunner, "_keep_if_better", watched)
    model = small_model()
    result = fit(model, splits(), _plan(HEAD, ALL))
    (head, _), (everything, _) = states
    assert result.best_stage == "head + all"
    for path, value in weights_of(model).items():
        np.testing.assert_allclose(value, (head[path] + everything[path]) / 2, atol=1e-7)


def test_training_without_validation_pictures_works() -> None:
    from tl_keras.data.splits import Splits

    data = splits()
    model = small_model()
    before = weights_of(model)
    result = fit(model, Splits(data.train, data.val.take([]), None), _plan(HEAD, ALL))
    assert [row["val_loss"] for row in result.history] == [None] * 6
    assert result.best_stage == "all"
    assert not (before["block1_conv/kernel"] == weights_of(model)["block1_conv/kernel"]).all()
