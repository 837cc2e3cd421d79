from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tl_keras.errors import DataError, PlanError, RunError
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.workflows.evaluate import evaluate_run, predict_files
from tl_keras.workflows.fit import train
from tl_keras.workflows.update import UpdateConfig, update

ACROSS, DOWN = np.mgrid[:20, :20]
SHAPES = {
    "rows": ACROSS % 8 < 3,
    "columns": DOWN % 8 < 3,
    "disc": (ACROSS - 10) ** 2 + (DOWN - 10) ** 2 < 49,
    "slope": abs(ACROSS - DOWN) < 3,
}


def quiet(*_):
    pass


def draw(root, names, count=10, seed=0):
    generator = np.random.default_rng(seed)
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shape = np.roll(SHAPES.get(name, SHAPES["rows"]), generator.integers(-2, 3), (0, 1))
            pixels = generator.normal(40 + 170 * shape[..., None], 15, (20, 20, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(root / name / f"{seed}-{number}.png")
    return root


def tree(folder):
    """Every file of a folder by its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run that knows rows and columns, and new pictures of a disc."""
    place = tmp_path_factory.mktemp("update")
    photos = draw(place / "photos", ["rows", "columns"])
    draw(place / "new", ["disc"], seed=1)
    settings = {"batch_size": 8, "augment": "none"}
    job = RunConfig.of(
        str(photos), "small_resnet", 16, plan="probe", epochs=(25,), settings=settings
    )
    train(job, place / "run")
    return place


@pytest.fixture(scope="module")
def updated(place):
    """The run after an update with replay; read it alone."""
    before = tree(place / "run")
    update(asked(place, epochs=(25,)), place / "run2", progress=quiet)
    assert tree(place / "run") == before
    return place / "run2"


def asked(place, data="new", run="run", **more):
    return UpdateConfig(str(place / run), str(place / data), **more)


def test_old_classes_keep_their_places_and_the_new_one_follows(updated):
    run = RunDirectory(updated)
    assert run.fact("classes") == ["columns", "rows", "disc"]
    assert (updated / "labels.txt").read_text().split() == ["columns", "rows", "disc"]
    assert run.model().output_shape == (None, 3)


def test_the_new_run_can_be_evaluated_and_asked(updated, place):
    scores = evaluate_run(updated, None, "val", quiet)
    assert scores["accuracy"]["value"] == RunDirectory(updated).record["metrics"]["val"][
        "accuracy"]["value"]  # fmt: skip
    rows = predict_files(updated, [place / "new" / "disc", place / "photos" / "rows"], 1, quiet)
    named = [row["outputs"][0]["name"] for row in rows]
    assert np.mean([a == b for a, b in zip(named, ["disc"] * 10 + ["rows"] * 10)]) >= 0.9


def test_the_record_and_the_report_say_what_was_kept(updated):
    facts = json.loads((updated / "run.json").read_text())["update"]
    rows = facts["accuracy"]
    assert rows["new classes"]["before"]["value"] == 0
    assert rows["old pictures"]["before"]["value"] >= 0.8
    assert facts["new_classes"] == ["disc"]
    lost = rows["old pictures"]["before"]["value"] - rows["old pictures"]["after"]["value"]
    assert facts["forgetting"] == pytest.approx(lost)
    assert facts["backward"] == pytest.approx(-lost)
    page = (updated / "report.html").read_text()
    assert "What was learned, and what was kept" in page
    assert "forgetting" in page
    assert (updated / "plots" / "update.png").exists()


def test_pictures_are_kept_within_the_budget_and_known_by_their_pixels(updated, place):
    kept = [path for path in (updated / "memory").iterdir() if path.suffix in (".png", ".jpg")]
    facts = RunDirectory(updated).record["update"]["memory"]
    assert facts["bytes"] == sum(path.stat().st_size for path in kept) <= 20e6
    pixels = {np.asarray(Image.open(path)).tobytes() for path in kept}
    originals = {np.asarray(Image.open(p)).tobytes() for p in place.glob("*/*/*.png")}
    assert pixels <= originals


@pytest.mark.slow
def test_the_next_update_needs_no_old_folder(updated, place, tmp_path):
    moved = tmp_path / "run2"
    shutil.copytree(updated, moved)
    draw(tmp_path / "more", ["slope"], seed=2)
    hidden = [place / name for name in ("photos", "new")]
    try:
        for folder in hidden:
            folder.rename(folder.with_suffix(".away"))
        request = UpdateConfig(str(moved), str(tmp_path / "more"), epochs=(25,))
        run = update(request, tmp_path / "run3", progress=quiet)
    finally:
        for folder in hidden:
            folder.with_suffix(".away").rename(folder)
    counts = run.fact("data", "counts")
    assert list(counts["train"]) == ["columns", "rows", "disc", "slope"]
    assert min(counts["train"].values()) >= 5
    facts = run.record["update"]
    assert [step["name"] for step in facts["steps"]] == ["photos", "new", "more"]
    assert np.shape(facts["matrix"]) == (3, 3)
    # A model says nothing of classes that it does not know yet.
    assert facts["matrix"][0][1:] == [None, None]
    assert RunDirectory(run.path).record["metrics"]["val"]["accuracy"]["value"] > 0.6


@pytest.mark.slow
def test_streaming_needs_no_picture_once_it_has_counted_them(place, tmp_path):
    first = update(asked(place, keep=("streaming",)), tmp_path / "run2", progress=quiet)
    assert 0.5 < first.record["temperature"] < 2
    old, new = RunDirectory(place / "run").model(), first.model()
    for layer in old.layers[:-2]:
        for a, b in zip(layer.get_weights(), new.get_layer(layer.name).get_weights()):
            np.testing.assert_array_equal(a, b)
    shutil.rmtree(first.path / "memory")
    draw(tmp_path / "more", ["slope"], seed=2)
    table = first.path / "pictures.csv"
    table.write_text(table.read_text().replace(str(place), "/gone"))
    request = UpdateConfig(str(first.path), str(tmp_path / "more"), keep=("streaming",))
    run = update(request, tmp_path / "run3", progress=quiet)
    named = [
        row["outputs"][0]["name"]
        for row in predict_files(run.path, [place / "photos" / "rows", place / "new"], 1, quiet)
    ]
    assert np.mean([a == b for a, b in zip(named, ["rows"] * 10 + ["disc"] * 10)]) >= 0.85


def refused(error, match, place, tmp_path, **more):
    run = tree(place / "run")
    with pytest.raises(error, match=match):
        update(asked(place, **more), tmp_path / "run2", progress=quiet)
    assert tree(place / "run") == run
    assert not [path for path in tmp_path.iterdir() if "run2" in path.name]


def test_another_spelling_of_a_class_is_refused_unless_confirmed(place, tmp_path):
    draw(tmp_path / "new", ["Row"], seed=3)
    refused(DataError, "--new-class 'Row'", place, tmp_path, data=tmp_path / "new")


def test_known_pictures_are_refused_or_left_out(place, tmp_path):
    refused(DataError, "no new picture", place, tmp_path, data="photos")
    both = draw(tmp_path / "both", ["disc"], seed=1)
    shutil.copytree(place / "photos" / "rows", both / "rows")
    for number, path in enumerate((both / "rows").iterdir()):
        path.rename(path.with_name(f"renamed {number}.png"))
    refused(DataError, "10 of the 20 pictures .* --skip-bad", place, tmp_path, data=both)


def test_a_budget_below_one_picture_a_class_is_refused(place, tmp_path):
    refused(DataError, "one for each of the 3 classes", place, tmp_path, memory="1kB")
    refused(DataError, "expected such as 20MB", place, tmp_path, memory="lots")


def test_what_makes_no_sense_is_refused(place, tmp_path):
    refused(PlanError, "unknown remedy 'reply'", place, tmp_path, keep=("reply",))
    refused(PlanError, "nothing to hold", place, tmp_path, keep=("streaming", "ewc"))
    refused(PlanError, "herding, balanced", place, tmp_path, exemplars="best")
    refused(PlanError, "above 0", place, tmp_path, strength=0)
    refused(DataError, "does not exist", place, tmp_path, data="nowhere")


def test_an_unfinished_run_and_a_place_within_the_run_are_refused(place, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(place / "run", half)
    RunDirectory(half).update(state="incomplete")
    with pytest.raises(RunError, match="not complete"):
        update(UpdateConfig(str(half), str(place / "new")), tmp_path / "run2")
    with pytest.raises(RunError, match="which is read"):
        update(asked(place), place / "run" / "next")
    with pytest.raises(RunError, match="exists already"):
        update(asked(place), place / "run")


def test_old_pictures_that_are_gone_leave_the_remedies_that_need_none(place, tmp_path):
    away = (place / "photos").rename(place / "away")
    try:
        refused(RunError, "--keep l2sp,lwf", place, tmp_path, keep=("replay", "ewc"))
        asked_for = asked(place, keep=("l2sp",), epochs=(1,))
        facts = update(asked_for, tmp_path / "out").record["update"]
        assert facts["gone"] == 20 and facts["forgetting"] is None
        report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "20 earlier images are no longer where they were: what was forgotten" in report
    finally:
        away.rename(place / "photos")


def test_a_failure_while_learning_leaves_nothing(place, tmp_path):
    def stop(task, done, total):
        if task == "stage head" and done > 2:
            raise KeyboardInterrupt

    before = tree(place / "run")
    with pytest.raises(KeyboardInterrupt):
        update(asked(place), tmp_path / "run2", progress=stop)
    assert tree(place / "run") == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_remedy_at_once_holds_the_base_and_keeps_what_a_later_step_needs(tmp_path):
    photos = draw(tmp_path / "photos", ["rows", "columns"])
    draw(tmp_path / "new", ["disc"], seed=1)
    train(RunConfig.of(str(photos), "small_resnet", 16, epochs=(8, 1)), tmp_path / "run")
    request = UpdateConfig(
        str(tmp_path / "run"), str(tmp_path / "new"), keep=("replay", "ewc", "l2sp", "lwf"),
        epochs=(6, 2),
    )  # fmt: skip
    run = update(request, tmp_path / "run2", progress=quiet)
    assert (run.path / "importance.npz").exists()
    assert run.record["update"]["accuracy"]["all"]["after"]["value"] > 0.6
    shutil.rmtree(photos)
    shutil.rmtree(run.path / "memory")
    draw(tmp_path / "more", ["slope"], seed=2)
    again = UpdateConfig(str(run.path), str(tmp_path / "more"), keep=("ewc",), epochs=(2, 1))
    assert update(again, tmp_path / "run3", progress=quiet).complete
