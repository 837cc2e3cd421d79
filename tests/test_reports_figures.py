"""Plots are drawn from a real model's predictions and read back as images."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from tl_keras import modalities
from tl_keras.errors import DataError, StorageError
from tl_keras.evaluation.calibration import fit_temperature
from tl_keras.evaluation.mistakes import collect_mistakes
from tl_keras.reports import figures as plots
from tl_keras.reports import style
from tl_keras.reports.history import best_row, stage_spans
from tl_keras.tasks import evaluate

HISTORY = [
    {"stage": stage, "epoch": k, "learning_rate": rate / (k + 1), "loss": 2 / (k + 1),
     "accuracy": k / 9,
     "val_loss": 2.2 / (k + 1), "val_accuracy": k / 10, "seconds": 1.0}
    for k, (stage, rate) in enumerate([("head", 1e-3)] * 4 + [("all", 1e-4)] * 4)
]
thumbnail = modalities.get("image").thumbnail
ODD_NAMES = [
    "猫と犬", "نمل", "a name that goes on " * 9, "$x$ _^{", "bad\udc80", "two\nlines", "😀", "",
]


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    data = load_digits()
    model = LogisticRegression(C=50, max_iter=100).fit(data.data[:150], data.target[:150])
    probabilities, labels = model.predict_proba(data.data[150:650]), data.target[150:650]
    items = [(picture * 15).astype(np.uint8) for picture in data.images[150:650]]
    return probabilities, labels, items, [f"digit {k}" for k in range(10)]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def has_color(path, color: str, least: int = 30) -> bool:
    wanted = np.array([int(color[k:k + 2], 16) for k in (1, 3, 5)])
    return (np.abs(pixels(path).astype(int) - wanted).max(2) < 8).sum() >= least


def test_each_plot_is_a_png_at_the_path_returned_and_nothing_else_is_left(digits, tmp_path):
    probabilities, labels, items, names = digits
    figures = evaluate(probabilities, labels, names)
    found = collect_mistakes(items, thumbnail, probabilities, labels, names, 5)
    written = [
        plots.plot_curves(HISTORY, tmp_path / "deep" / "curves.png"),
        plots.plot_confusion(figures["confusion"], names, tmp_path / "deep" / "confusion.png"),
        plots.plot_recall(figures["per_class"], tmp_path / "deep" / "recall.png"),
        plots.plot_mistakes(found, str(tmp_path / "deep" / "mistakes.png")),
        plots.plot_learning_rates([1e-5, 1e-4], [2, 1], tmp_path / "deep" / "rates.png", 1e-4),
        plots.plot_reliability(probabilities, labels, tmp_path / "deep" / "reliability.png",
                               fit_temperature(probabilities, labels)),
    ]
    assert sorted(written) == sorted((tmp_path / "deep").iterdir())
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert pixels(path).std() > 5


def test_curves_show_training_validation_and_rate(tmp_path):
    path = plots.plot_curves(HISTORY, tmp_path / "c.png")
    assert all(has_color(path, c) for c in (style.ORANGE, style.BLUE, style.GREEN))
    bare = plots.plot_curves([{"stage": "head", "loss": 1.0}] * 3, tmp_path / "bare.png")
    assert not has_color(bare, style.BLUE) and not has_color(bare, style.GREEN)
    assert pixels(bare).shape[0] < pixels(path).shape[0]


@pytest.mark.parametrize("history", [
    [], HISTORY[:1], [{k: str(v) for k, v in row.items()} for row in HISTORY],
    [{**row, "val_loss": "", "val_accuracy": None} for row in HISTORY],
    [{**row, "loss": float("nan")} for row in HISTORY],
    [{**row, "stage": f"unfreeze {k} $x$"} for k, row in enumerate(HISTORY)],
])
def test_curves_of_odd_histories_are_drawn(history, tmp_path):
    assert plots.plot_curves(history, tmp_path / "c.png").exists()


def test_the_best_epoch_is_the_one_that_was_kept_else_the_one_with_the_lowest_loss():
    pairs = ((0.8, 1), (0.9, 1), ("0.95", 2), (None, None))
    rows = [{"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in pairs]
    assert best_row(rows) == 1
    assert best_row([*rows, {"val_loss": 3, "kept": True}]) == 4
    assert best_row([{"val_accuracy": 0.1}, {"val_accuracy": 0.2}, {}]) == 1
    assert best_row([{"loss": 1}]) is None
    assert best_row([]) is None


def test_stages_are_found_with_their_borders():
    assert stage_spans(HISTORY) == [("head", 0, 4), ("all", 4, 8)]


@pytest.mark.parametrize("classes", [2, 100, pytest.param(250, marks=pytest.mark.slow)])
def test_confusion_stays_within_sensible_bounds_for_any_number_of_classes(classes, tmp_path):
    counts = np.eye(classes, dtype=int) * 9
    names = [f"class {k}" for k in range(classes)]
    shape = pixels(plots.plot_confusion(counts, names, tmp_path / "c.png")).shape
    assert min(shape[:2]) > 400 and max(shape[:2]) < 2400


def test_a_mistake_is_orange_and_a_hit_blue(tmp_path):
    path = plots.plot_confusion([[0, 5], [5, 0]], ["a", "b"], tmp_path / "wrong.png")
    wrong = pixels(path).astype(int)
    right = pixels(plots.plot_confusion([[5, 0], [0, 5]], ["a", "b"], path)).astype(int)
    assert (wrong[..., 0] - wrong[..., 2] > 80).mean() > 0.1
    assert (right[..., 2] - right[..., 0] > 80).mean() > 0.1
    assert (right[..., 0] - right[..., 2] > 80).mean() < 0.01


def test_names_in_any_script_raise_no_warning_in_any_plot(tmp_path):
    count = len(ODD_NAMES)
    plots.plot_confusion(np.eye(count, dtype=int), ODD_NAMES, tmp_path / "c.png")
    rows = evaluate(np.eye(count), np.arange(count), ODD_NAMES)["per_class"]
    plots.plot_recall(rows, tmp_path / "r.png")
    wrong = np.roll(np.eye(count), 1, axis=1)
    found = collect_mistakes([np.zeros((8, 8), np.uint8)] * count, thumbnail, wrong,
                             np.arange(count), ODD_NAMES)
    assert len(found) == count
    plots.plot_mistakes(found, tmp_path / "m.png")


def test_what_cannot_be_drawn_becomes_its_output_number_and_long_names_keep_their_ends():
    labels = style.drawable(["plain", "\U000e0041 tag", "left" + "-" * 90 + "right", "a\tb"])
    assert labels[:2] == ["plain", "#1"]
    assert labels[2].startswith("left") and labels[2].endswith("right") and len(labels[2]) == 24
    assert labels[3] == "a b"


def test_dollars_in_a_name_are_dollars():
    figure = style.new_figure(3, 2)
    text = figure.text(0.5, 0.5, r"$\frac{$ 5 notes $")
    style.plain([text])
    figure.draw_without_rendering()
    assert text.get_text() == r"$\frac{$ 5 notes $"


def test_mistakes_carry_a_preview_and_both_names(digits):
    probabilities, labels, items, names = digits
    found = collect_mistakes(items, thumbnail, probabilities, labels, names, 4)
    assert len(found) == 4
    assert [m.confidence for m in found] == sorted((m.confidence for m in found), reverse=True)
    for mistake in found:
        assert mistake.true != mistake.predicted
        assert mistake.places == (names.index(mistake.true), names.index(mistake.predicted))
        assert mistake.preview.size == (8, 8) and mistake.preview.mode == "RGB"


def test_an_image_that_is_gone_does_not_stop_the_rest(tmp_path):
    Image.new("RGB", (900, 700), "red").save(tmp_path / "there.png")
    items = [str(tmp_path / "there.png"), str(tmp_path / "gone.png")]
    found = collect_mistakes(items, thumbnail, np.eye(2), np.array([1, 0]), ["a", "b"])
    assert found[0].preview.size[0] == 320 and found[1].preview is None
    assert plots.plot_mistakes(found, tmp_path / "m.png").exists()
    assert has_color(tmp_path / "m.png", "#ff0000", 5000)
    assert plots.plot_mistakes([], tmp_path / "none.png").exists()
    texts = collect_mistakes(items, lambda item: "$a text" * 20, np.eye(2), [1, 0], ["a", "b"])
    assert plots.plot_mistakes(texts, tmp_path / "texts.png").exists()


def test_rates_that_diverge_or_are_no_numbers_do_not_spoil_the_scale(tmp_path):
    rates, losses = np.geomspace(1e-6, 10, 50), np.r_[np.linspace(2, 1, 40), [9e9] * 9, np.nan]
    path = plots.plot_learning_rates(rates, losses, tmp_path / "r.png", 1e-3)
    assert has_color(path, style.VERMILLION)
    assert plots.plot_learning_rates([], [], tmp_path / "e.png").exists()
    assert plots.plot_learning_rates([1e-3], [np.nan], tmp_path / "n.png", 1e-3).exists()


def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path):
    with pytest.raises(DataError, match="2 class names"):
        plots.plot_confusion(np.eye(3), ["a", "b"], tmp_path / "c.png")


def test_a_plot_that_cannot_be_written_leaves_the_old_one(tmp_path):
    old = tmp_path / "plots"
    old.write_text("not a folder")
    with pytest.raises(StorageError, match="cannot be written"):
        plots.plot_curves(HISTORY, old / "c.png")
    assert old.read_text() == "not a folder"


def test_plots_touch_no_global_state_and_can_be_drawn_in_threads(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    threads = [threading.Thread(target=plots.plot_curves, args=(HISTORY, tmp_path / f"{k}.png"))
               for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 2
    assert dict(matplotlib.rcParams) == before
