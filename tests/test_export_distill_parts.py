"""Teacher and student see the same pictures, and the teacher stays as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
from training_models import small_model, splits

from export.distill.config import DistillationConfig as Config
from export.distill.mixup import Mixing
from export.distill.objectives import BaselineObjective, DistillationObjective, make_view_reader
from export.distill.students import with_judges
from export.distill.teacher import Teacher, TeacherCache, load_teacher, make_answering_model
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.models.logits import logits_of, with_own_softmax
from tl_keras.training.config import FitOptions
from tl_keras.training.freezing import freeze
from tl_keras.training.plan import Plan, Stage
from tl_keras.utils.quiet import start_tensorflow

start_tensorflow()
HEAD, ALL = Stage("head", ("head",), 3, 1e-2), Stage("all", ("all",), 3, 1e-3)


def plan_of(*stages, **values):
    return Plan("test", stages or (HEAD, ALL), 8, **{"augment": "affine", "views": 2, **values})


def objective_for(teacher, student, folder, config=None, plan=None, mixing=None):
    config, plan, data = config or Config(), plan or plan_of(), splits()
    model, pairs = make_answering_model(Teacher(teacher, None, "teacher"), student, config)
    reader = make_view_reader(data.train, model, plan.augment, 0, mixing)
    answers = TeacherCache(model, reader, plan.views, folder, "float32", lambda *_: None)
    answers.compute()
    return DistillationObjective(data, plan, answers, pairs, config, mixing)


def runner_of(student, objective, folder):
    from tl_keras.training.stage_runner import StageRunner

    options = FitOptions(state_dir=folder, objective=objective, precision="float32")
    folder.mkdir(exist_ok=True)
    return StageRunner(student, objective.data, objective.plan, options)


def ended(kind):
    """A classifier with a softmax of each kind; all give the same."""
    import keras

    model = small_model()
    if kind == "linear":
        return keras.Model(model.inputs, model.get_layer("head_logits").output)
    if kind == "layer":
        return model
    dense, below = model.get_layer("head_logits"), model.get_layer("head_avg_pool").output
    if kind == "within":
        last = keras.layers.Dense(3, activation="softmax", name="last")
        made = keras.Model(model.inputs, last(below))
        last.set_weights(dense.get_weights())
        return made
    soft = keras.layers.Softmax() if kind == "softmax layer" else keras.ops.softmax
    return keras.Model(model.inputs, soft(dense.output))


KINDS = ["layer", "softmax layer", "operation", "within", "linear"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_softmax_is_cut_off_however_it_was_put_on(kind):
    import keras

    model, plain = ended(kind), small_model()
    pictures = splits().train.items[:4].astype(np.float32)
    logits = keras.Model(model.inputs, logits_of(model))(pictures)
    expected = keras.Model(plain.inputs, plain.get_layer("head_logits").output)(pictures)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    student = with_own_softmax(model)
    np.testing.assert_allclose(student(pictures), plain(pictures), atol=1e-6)
    np.testing.assert_allclose(
        keras.Model(student.inputs, logits_of(student))(pictures), expected, atol=1e-6
    )


def test_the_head_of_a_students_own_file_can_be_trained():
    """A softmax named head_, cut off a layer of another name, would be all of the head."""
    import keras

    vector = keras.Input((4,))
    x = keras.layers.Dense(6, "relu", name="body")(vector)
    plain = keras.Model(vector, keras.layers.Dense(3, "softmax", name="answers")(x))
    assert freeze(with_own_softmax(plain), ["head"]) == ["answers"]


@pytest.mark.parametrize("ending", ["sigmoid", "relu", "pooling"])
def test_an_output_without_logits_is_refused_with_the_way_out(ending):
    import keras

    model = small_model()
    last = model.get_layer("head_logits").output
    tensor = keras.layers.Activation(ending)(last) if ending != "pooling" else None
    if tensor is None:
        tensor = keras.layers.GlobalMaxPooling2D()(model.get_layer("block2_relu").output)
    with pytest.raises(ExportError, match="no logits to learn from; give a model that ends in"):
        logits_of(keras.Model(model.inputs, tensor), "teacher")


def test_the_teacher_is_not_changed(tmp_path):
    teacher, student = small_model(size=32), small_model()
    before, weights = teacher.to_json(), teacher.get_weights()
    flags = [layer.trainable for layer in teacher.layers]
    nodes = [len(layer._outbound_nodes) for layer in teacher.layers]
    objective = objective_for(teacher, student, tmp_path / "answers", Config("kd+features"))
    runner_of(student, objective, tmp_path / "state").run()
    assert json.loads(teacher.to_json()) == json.loads(before)
    assert all((a == b).all() for a, b in zip(teacher.get_weights(), weights, strict=True))
    assert [layer.trainable for layer in teacher.layers] == flags
    assert [len(layer._outbound_nodes) for layer in teacher.layers] == nodes


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_the_teacher_answered_for_the_very_picture_that_the_student_sees(tmp_path, mixup):
    import keras

    teacher, student = small_model(), small_model()
    mixing = Mixing(48, 0, mixup) if mixup else None
    objective = objective_for(teacher, student, tmp_path / "answers", mixing=mixing)
    logits = keras.Model(teacher.inputs, teacher.get_layer("head_logits").output)
    runner = runner_of(student, objective, tmp_path / "state")
    indices, seen = np.arange(3, 19), []
    for epoch in range(3):
        runner.trainer(1)
        pictures, packed, _ = runner._stage_data(1).train(epoch, indices)
        np.testing.assert_allclose(packed[:, 3:6], logits(pictures.astype("float32")), atol=1e-5)
        seen.append(pictures)
    # Two views were answered for: the third epoch sees the first one again, not a third.
    assert (seen[0] == seen[2]).all()
    assert (seen[0] != seen[1]).any()


def test_cached_features_and_answers_are_of_the_same_view(tmp_path):
    import keras

    student = small_model()
    objective = objective_for(student, student, tmp_path / "answers")
    runner = runner_of(student, objective, tmp_path / "state")
    trainer = runner.trainer(0)
    assert runner.cuts[0].layer is not None
    for epoch in range(3):
        # The teacher is the student here: what its suffix says of the features is the answer.
        features, packed, _ = trainer.data.train(epoch, np.arange(20))
        said = keras.ops.convert_to_numpy(trainer.suffix(features))
        np.testing.assert_allclose(packed[:, 3:6], said, atol=1e-5)


def test_a_view_is_the_same_part_of_the_picture_at_every_size():
    from PIL import Image

    from tl_keras.data.samples import from_arrays

    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    picture = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64))] * 2, -1)[..., :3]
    samples = from_arrays(picture[None], [0], ["a", "b"])
    models = (small_model(size=n) for n in (16, 32))
    readers = (make_view_reader(samples, one, "flip+crop", 3, None) for one in models)
    small, large = (reader.read([0], 5)["image"] for reader in readers)
    shrunk = np.asarray(Image.fromarray(large[0]).resize((16, 16), Image.Resampling.BOX))
    assert np.abs(shrunk.astype(int) - small[0]).max() <= 6


def test_mixed_pictures_labels_and_weights_are_the_same_mix(tmp_path):
    data, mixing = splits(), Mixing(48, 7, 1.0)
    objective = BaselineObjective(data, plan_of(augment="none"), mixing)
    views, indices = np.array([0, 1, 1, 1]), np.array([5, 6, 7, 8])
    partners, shares = mixing.view(1)
    read = objective.reader(small_model(), 0).read(indices, views)["image"]
    labels, weights = objective.batch(views, indices)
    assert (read[0] == data.train.items[5]).all()
    assert labels[0].tolist() == np.eye(3)[data.train.labels[5]].tolist()
    for row, index in enumerate(indices[1:], 1):
        own, other = shares[index], 1 - shares[index]
        mix = own * data.train.items[index] + other * data.train.items[partners[index]]
        assert np.abs(read[row] - mix).max() <= 0.5 + 1e-4
        said = own * np.eye(3)[data.train.labels[index]]
        said = said + other * np.eye(3)[data.train.labels[partners[index]]]
        np.testing.assert_allclose(labels[row], said, atol=1e-6)
    assert weights == pytest.approx(np.ones(4))
    assert (shares >= 0.5).all()
    assert (Mixing(48, 8, 1.0).view(1)[1] != shares).any()


def saved(model, folder):
    model.save(folder / "saved.keras")
    return folder / "saved.keras"


def test_features_are_matched_where_they_can_change_and_projections_stay_behind(tmp_path):
    import keras

    teacher, student = small_model(size=32), small_model()
    config = Config("features", layers=(("block2_relu", "block1_relu"),))
    objective = objective_for(teacher, student, tmp_path / "answers", config)
    assert objective.answers.shapes == [(3,), (8, 8, 8)]
    runner = runner_of(student, objective, tmp_path / "state")
    frozen = runner.trainer(0)
    assert (frozen.suffix.output_shape[-1], frozen.data.spec[1].shape[-1]) == (3, 6)
    whole = runner.trainer(1)
    assert whole.suffix.output_shape[-1] == 3 + 512
    _, packed, _ = whole.data.train(0, np.arange(48))
    shown = packed[:, 6:].reshape(-1, 8)
    live = shown.std(0) > 0
    np.testing.assert_allclose(shown.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(shown.std(0)[live], 1, atol=1e-2)
    whole.run({"stage": 1})
    names = [layer.name for layer in keras.saving.load_model(saved(student, tmp_path)).layers]
    assert names == [layer.name for layer in student.layers]
    assert len(names) == len(small_model().layers)
    assert not [name for name in names if "projection" in name]


def test_matching_features_brings_them_together(tmp_path):
    teacher, student = small_model(), small_model()
    student.get_layer("block1_conv").set_weights(
        [0.3 * w for w in reversed(student.get_layer("block1_conv").get_weights()[::-1])]
    )
    config = Config("features", beta=50.0)
    stage = Stage("all", ("all",), 6, 1e-2)
    objective = objective_for(teacher, student, tmp_path / "a", config, plan_of(stage))
    rows = runner_of(student, objective, tmp_path / "state").trainer(0).run({})
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]


@pytest.mark.slow
def test_without_the_teachers_share_a_taught_student_is_the_untaught_one(tmp_path):
    weights = []
    for name in ("taught", "untaught"):
        student = small_model(dropout=0.3)
        objective = BaselineObjective(splits(), plan_of())
        if name == "taught":
            mix = Config("kd", alpha=0.0)
            objective = objective_for(small_model(), student, tmp_path / "a", mix)
        import keras

        keras.utils.set_random_seed(0)
        runner_of(student, objective, tmp_path / name).run()
        weights.append(student.get_weights())
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


def test_the_best_epoch_is_chosen_by_the_plain_loss_of_the_labels(tmp_path):
    from tl_keras.features.extract import predict

    student, teacher = small_model(), small_model()
    # A teacher that is sure of the wrong class: its answers make the plain loss worse.
    kernel, bias = teacher.get_layer("head_logits").get_weights()
    teacher.get_layer("head_logits").set_weights([kernel * 0, bias + [4, 0, 0]])
    stage = Stage("all", ("all",), 4, 3e-3, warmup=0.0)
    config = Config("kd", temperature=1.0, alpha=1.0)
    objective = objective_for(teacher, student, tmp_path / "a", config, plan_of(stage, ema=False))
    runner = runner_of(student, objective, tmp_path / "state")
    result = runner.run()
    rows = result.history
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["val_loss"] > rows[0]["val_loss"]
    assert result.stages[0]["best_epoch"] == 0
    val = objective.data.val
    plain = val.kind.sample_losses(
        predict(student, val), val.kind.targets(val.labels, len(val.class_names))
    ).mean()
    assert rows[0]["val_loss"] == pytest.approx(plain, rel=1e-4)


def test_both_students_go_through_every_epoch(tmp_path, folder):
    from export.distill.students import Distillation, prepare_distillation

    small_model().save(tmp_path / "model.keras")
    path = str(tmp_path / "model.keras")
    request = Distillation(path, path, data=str(folder), plan="lp-ft")
    ready = prepare_distillation(request, Teacher(small_model(), None, "teacher"), lambda *_: None)
    assert [stage.name for stage in ready.plan.stages] == ["head", "all"]
    assert [stage.patience for stage in ready.plan.stages] == [0, 0]


def taught(seed, run=None):
    import keras

    keras.utils.set_random_seed(seed)
    return Teacher(small_model(), run, f"teacher {seed}")


def save_several(tmp_path, count):
    places = []
    for seed in range(count):
        places.append(tmp_path / f"{seed}.keras")
        taught(seed).model.save(places[-1])
    return places


def test_an_ensemble_answers_with_the_mean_of_its_logits(tmp_path):
    import keras

    places = save_several(tmp_path, 3)
    pictures = splits().train.items[:4].astype(np.float32)
    wanted = np.mean(
        [
            keras.Model(one.inputs, logits_of(one)).predict(pictures, verbose=0)
            for one in map(keras.saving.load_model, places)
        ],
        axis=0,
    )
    teacher = load_teacher(places[0], places[1:])
    model, _ = make_answering_model(teacher, small_model(), Config())
    np.testing.assert_allclose(model.predict(pictures, verbose=0), wanted, atol=1e-5)
    assert teacher.name == "ensemble of 0.keras, 1.keras, 2.keras"


def test_a_soup_is_the_mean_of_the_weights(tmp_path):
    import keras

    places = save_several(tmp_path, 2)
    columns = zip(*(keras.saving.load_model(one).get_weights() for one in places), strict=True)
    soup = load_teacher(places[0], places[1:], "soup").model
    for found, column in zip(soup.get_weights(), columns, strict=True):
        np.testing.assert_allclose(found, (column[0] + column[1]) / 2, atol=1e-7)


def test_teachers_of_other_classes_are_refused(tmp_path):
    (place,) = save_several(tmp_path, 1)
    small_model(outputs=5).save(tmp_path / "five.keras")
    with pytest.raises(ExportError, match="expected teachers of the same size and classes"):
        load_teacher(place, [tmp_path / "five.keras"])


def test_a_teacher_that_learned_what_the_first_is_judged_by_is_refused(trained, tmp_path):
    import shutil

    copied = shutil.copytree(trained, tmp_path / "other")
    text = (copied / "split.csv").read_text()
    assert ",val," in text
    (copied / "split.csv").write_text(text.replace(",val,", ",train,", 1))
    with pytest.raises(ExportError, match="trained on 1 samples by which .* is judged"):
        load_teacher(trained, [copied])


def test_without_validation_a_fifth_of_training_is_held_out_to_choose_by():
    data = splits(40, 10)
    kept = with_judges(data, 0, {})
    assert kept is data
    found = with_judges(Splits(data.train, data.val.take([]), None), 0, {})
    assert len(found.val) == pytest.approx(8, abs=2)
    assert sorted((*found.train.keys, *found.val.keys)) == sorted(data.train.keys)
    assert set(found.val.labels) == set(data.train.labels)
