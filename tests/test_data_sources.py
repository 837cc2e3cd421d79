"""Folders, CSV files, arrays and names become samples, or one clear error."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tl_keras import modalities
from tl_keras.data.folders import from_unlabeled
from tl_keras.data.samples import Samples, from_arrays
from tl_keras.data.sources import load_again, load_samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError


def _tree(root, *paths):
    for path in paths:
        file = root / path
        if path.endswith("/"):
            file.mkdir(parents=True, exist_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(file, "PNG")
    return root


def _table(root, text, *paths):
    _tree(root, *paths)
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return root / "labels.csv"


def test_class_folders_become_sorted_classes_keys_and_labels(tmp_path):
    samples = load_samples(_tree(tmp_path, "dog/2.jpg", "cat/1.JPG", "dog/1.png", "cat/b/3.webp"))
    assert samples.class_names == ("cat", "dog")
    assert samples.keys == ("cat/1.JPG", "cat/b/3.webp", "dog/1.png", "dog/2.jpg")
    assert samples.labels.tolist() == [0, 0, 1, 1] and samples.labels.dtype == np.int64
    assert samples.items == [os.path.join(tmp_path, *key.split("/")) for key in samples.keys]
    assert samples.splits is None and samples.task == "classes" and samples.root == str(tmp_path)
    assert samples.counts() == {"cat": 2, "dog": 2}
    assert samples.modality.open(samples.items[0]).size == (4, 4)


def test_class_names_in_any_script_and_with_spaces(tmp_path):
    names = ["猫", "قطة", "två ord", "Ёж", "a.b", "ñandú", "😀"]
    samples = load_samples(_tree(tmp_path, *[f"{name}/ein Bild 图.png" for name in names]))
    assert samples.class_names == tuple(sorted(names))
    for item, label in zip(samples.items, samples.labels):
        assert os.path.isfile(item) and samples.class_names[label] in item


def test_a_decomposed_name_in_one_split_is_the_same_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "ñandú") for form in ("NFC", "NFD"))
    _tree(tmp_path, f"train/{composed}/1.png", "train/b/1.png")
    samples = load_samples(_tree(tmp_path, f"val/{decomposed}/2.png", "val/b/2.png"))
    assert samples.class_names == ("b", composed)
    assert all(os.path.isfile(item) for item in samples.items)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "VALID", "Test"),
                                   ("training", "validation", "testing")])  # fmt: skip
def test_split_folders_are_read_whatever_their_spelling(tmp_path, names):
    paths = [f"{name}/{c}/{i}.png" for i, name in enumerate(names) for c in "ab"]
    samples = load_samples(_tree(tmp_path, *paths))
    assert samples.class_names == ("a", "b")
    for split, name in zip(("train", "val", "test"), names):
        assert samples.where(split).keys == tuple(k for k in samples.keys if k.startswith(name))
        assert len(samples.where(split)) == 2


def test_a_class_may_be_named_like_a_split(tmp_path):
    samples = load_samples(_tree(tmp_path, "train/1.png", "bus/1.png", "test/x.png"))
    assert samples.class_names == ("bus", "test", "train") and samples.splits is None


def test_hidden_system_and_side_files_are_no_samples_but_other_files_are(tmp_path):
    _tree(tmp_path, "a/1.png", "b/1.png", ".git/x.png", "__MACOSX/a/1.png", "a/.x.png",
          "a/Thumbs.db", "a/notes.txt", "a/1.xml", "b/film.mp4", "b/noext", "SOURCE.txt",
          "sheet.png")  # fmt: skip
    assert load_samples(tmp_path).keys == ("a/1.png", "b/1.png", "b/film.mp4", "b/noext")


@pytest.mark.skipif(os.name != "posix", reason="not every system lets users make links")
def test_links_to_folders_are_followed_once(tmp_path):
    _tree(tmp_path / "far", "more/3.png")
    _tree(tmp_path / "photos", "a/1.png", "b/2.png")
    os.symlink(tmp_path / "far", tmp_path / "photos" / "a" / "link")
    os.symlink(tmp_path / "far", tmp_path / "far" / "more" / "loop")
    assert load_samples(tmp_path / "photos").keys == ("a/1.png", "a/link/more/3.png", "b/2.png")


def test_an_unlabeled_folder_hides_no_file_that_cannot_be_read(tmp_path):
    _tree(tmp_path, "2.png", "x/1.png", "x/film.mp4", "notes.txt", ".hidden.png")
    samples = from_unlabeled(str(tmp_path), modalities.get("image"))
    assert samples.keys == ("2.png", "x/1.png", "x/film.mp4") and samples.class_names == ("",)
    with pytest.raises(DataError, match="holds no image; expected"):
        from_unlabeled(str(_tree(tmp_path / "x" / "empty", "a.txt")), modalities.get("image"))


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], ["no class folders"]),
        (["1.png", "2.png"], ["no class folders", "2 images"]),
        (["only/1.png"], ["one class", "only"]),
        (["a/1.png", "b/", "c/note.txt"], ["Empty classes", "b, c"]),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/"], ["Empty", "val/b"]),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"],
         ["different classes", "val: c", "train: b"]),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png"], ["only in", "train: b"]),
        (["val/a/1.png", "val/b/1.png"], ["no train"]),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], ["val and valid"]),
        (["train/a/1.png", "val/a/1.png", "more/1.png"], ["beside other folders", "more"]),
        (["train/a/1.png", "val/a/1.png"], ["one class", "a"]),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_learnt_from_is_refused(tmp_path, paths, words):
    with pytest.raises(DataError) as caught:
        load_samples(_tree(tmp_path, *paths))
    assert all(word in str(caught.value) for word in [*words, str(tmp_path)])


def test_a_missing_folder_is_refused_and_the_nearest_offered(tmp_path):
    _tree(tmp_path, "Photos/a/1.png")
    with pytest.raises(DataError, match=f"Did you mean {tmp_path}/Photos"):
        load_samples(tmp_path / "photo")
    with pytest.raises(DataError, match="Did you mean digits"):
        load_samples("digit")
    with pytest.raises(DataError, match="nor .*/no/such"):
        load_samples(tmp_path / "no" / "such" / "place")


def test_a_file_that_is_no_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match="a file; expected a folder"):
        load_samples(_tree(tmp_path, "a.png") / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_place_of_a_table_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(DataError, match=r"labels.csv is a named pipe; expected"):
        load_samples(tmp_path / "labels.csv")


def test_a_built_in_name_is_read_only_where_no_such_path_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(_tree(tmp_path, "digits/a/1.png", "digits/b/1.png"))
    assert load_samples("digits").class_names == ("a", "b")


def test_a_csv_with_splits_spaces_quotes_and_any_script(tmp_path):
    text = '\ufeffPath, Label ,split\n"p/a, b.png","red, blue",train\np/猫.png,猫,VALID\n'
    text += '\np/c.png,猫,train\n./p/d.png,"red, blue",\n'
    table = _table(tmp_path, text, "p/a, b.png", "p/猫.png", "p/c.png", "p/d.png")
    samples = load_samples(table)
    assert samples.class_names == ("red, blue", "猫")
    assert samples.labels.tolist() == [0, 1, 1, 0]
    assert samples.keys == ("p/a, b.png", "p/猫.png", "p/c.png", "p/d.png")
    assert samples.splits == ("train", "val", "train", "")
    assert all(os.path.isfile(item) for item in samples.items)


def test_a_csv_of_tags(tmp_path):
    table = _table(tmp_path, "path,label\na.png,sea|sky\nb.png,\nc.png, sky \n",
                   "a.png", "b.png", "c.png")  # fmt: skip
    samples = load_samples(table, task="tags")
    assert samples.class_names == ("sea", "sky") and samples.labels.dtype == np.uint8
    assert samples.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert samples.counts() == {"sea": 1, "sky": 2}


def test_a_csv_of_values(tmp_path):
    table = _table(tmp_path, "path,label\na.png,1.5|-2\nb.png,1e3|0\n", "a.png", "b.png")
    samples = load_samples(table, task="values")
    assert samples.class_names == ("value 1", "value 2")
    assert samples.labels.tolist() == [[1.5, -2], [1000, 0]] and samples.labels.dtype == np.float32


@pytest.mark.parametrize("split", ["", ",split"])
def test_a_csv_with_a_column_a_tag_gives_the_same_as_joined_tags(tmp_path, split):
    end = ",train" if split else ""
    rows = f"a.png,1,0,1{end}\nb.png,0,0,0{end}\nc.png, 0 ,1.0,0{end}\n"
    table = _table(tmp_path, f"path,Cat,dog,big bird{split}\n{rows}", "a.png", "b.png", "c.png")
    samples = load_samples(table, task="tags")
    assert samples.class_names == ("Cat", "dog", "big bird")
    assert samples.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert samples.splits == (("train",) * 3 if split else None)


def test_a_csv_with_a_column_a_value_names_its_outputs(tmp_path):
    table = _table(tmp_path, "path,width,height\na.png,1.5,-2\nb.png,1e3,0\n", "a.png", "b.png")
    samples = load_samples(table, task="values")
    assert samples.class_names == ("width", "height")
    assert samples.labels.tolist() == [[1.5, -2], [1000, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,cat,dog\na.png,1,0\nb.png,2,0\n", ["0 or 1"]),
        ("path,cat,dog\na.png,1,0\nb.png,,0\n", ["line 3", "no finite number"]),
        ("path,cat,cat\na.png,1,0\nb.png,1,0\n", ["repeated: cat"]),
        (",path,cat\n0,a.png,1\n1,b.png,0\n", ["(a name)"]),
        ("path,split\na.png,train\nb.png,train\n", ["missing or repeated: label"]),
    ],
)
def test_columns_of_tags_that_are_wrong_are_refused(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        load_samples(_table(tmp_path, text, "a.png", "b.png"), task="tags")
    assert all(word in str(caught.value) for word in [*words, "labels.csv"])


@pytest.mark.skipif(os.sep != "/", reason="backslashes are the system's own")
def test_backslashes_are_read_as_slashes_where_only_that_names_a_file(tmp_path):
    table = _table(tmp_path, "path,label\np\\a.png,x\np\\b.png,y\n", "p/a.png", "p/b.png")
    samples = load_samples(table)
    assert samples.keys == ("p/a.png", "p/b.png") and os.path.isfile(samples.items[0])
    _table(tmp_path, "path,label\nq\\a.png,x\nq\\b.png,y\n", "q\\a.png", "q\\b.png")
    assert load_samples(table).keys == ("q\\a.png", "q\\b.png")
    _table(tmp_path, "path,label\nr\\a.png,x\n")
    with pytest.raises(DataError, match="line 2: r/a.png.*backslashes were read as slashes"):
        load_samples(table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,cat,dog\na.png,1,0\nb.png,0,1\n", ["task 'tags'"]),
        ("path,class\na.png,x\n", ["missing or repeated: label"]),
        ("a.png,x\nb.png,y\n", ["missing or repeated: path, label"]),
        ("path;label\na.png;x\n", ["separated by commas"]),
        ("", ["missing or repeated: path, label"]),
        ("path,label\n", ["no rows"]),
        ("path,label\na.png,x\nb.png,red, blue\n", ["line 3", "label in quotes"]),
        ("path,label\na.png,x\nb.png\n", ["line 3", "1 fields"]),
        ("path,label\na.png,x\nb.png,\n", ["line 3", "no label"]),
        ("path,label\na.png,x\nno.png,y\n", ["1 files that do not exist", "line 3: no.png"]),
        ("path,label\na.png,x\nno/b.png,y\n", ["1 files that do not exist"]),
        ("path,label,split\na.png,x,train\nb.png,y,holdout\n", ["line 3", "'holdout'"]),
        ("path,label,split\na.png,x,train\nb.png,y,val\n", ["classes y are in val or test only"]),
        ("path,label\na.png,x\nb.png,x\n", ["one class (x)"]),
        ("path,label\na.png,x\n./a.png,y\n", ["listed twice, on lines 2 and 3"]),
        ('path,label\na.png,"x\nb.png,y\n', ["quote open"]),
        ("path,label\na.png,x\nb\0.png,y\n", ["line 3"]),
    ],
)
def test_a_csv_that_is_wrong_is_refused_with_its_line(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        load_samples(_table(tmp_path, text, "a.png", "b.png"))
    assert all(word in str(caught.value) for word in [*words, "labels.csv"])


def test_a_csv_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("path,label\nä.png,x\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        load_samples(tmp_path / "a.csv")


@pytest.mark.parametrize("label", ["red", "nan", "", "1|2", "1e39"])
def test_values_that_are_no_numbers_are_refused(tmp_path, label):
    table = _table(tmp_path, f"path,label\na.png,1\nb.png,{label}\n", "a.png", "b.png")
    with pytest.raises(DataError, match="line 3"):
        load_samples(table, task="values")


def test_tags_and_values_need_a_csv(tmp_path):
    with pytest.raises(DataError, match="needs a CSV"):
        load_samples(_tree(tmp_path, "a/1.png", "b/1.png"), task="tags")
    with pytest.raises(DataError, match="unknown task"):
        load_samples(tmp_path, task="boxes")


def test_arrays_get_stable_keys_from_their_contents():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    images[4] = images[0]
    samples = from_arrays(images, ["b", "a", "b", "a", "b"])
    assert samples.class_names == ("a", "b") and samples.labels.tolist() == [1, 0, 1, 0, 1]
    assert len(set(samples.keys)) == 5 and samples.keys[4] == samples.keys[0] + "#2"
    assert from_arrays(images[1:3], [0, 1]).keys == samples.keys[1:3]
    assert from_arrays(images[..., 0], [0, 1, 0, 1, 1]).items.shape == (5, 8, 8, 1)


def test_numbers_among_the_labels_are_the_classes_and_none_is_made_up():
    images = np.zeros((4, 4, 4), np.uint8)
    samples = from_arrays(images, [1, 2, 5, 2])
    assert samples.class_names == ("1", "2", "5") and samples.labels.tolist() == [0, 1, 2, 1]
    named = from_arrays(images, [0, 2, 2, 0], ["a", "b", "c"])
    assert named.class_names == ("a", "b", "c") and named.labels.tolist() == [0, 2, 2, 0]
    with pytest.raises(DataError, match="from 1 to 2.*pass labels - 1"):
        from_arrays(images, [1, 2, 2, 1], ["a", "b"])


def test_parts_that_count_different_classes_are_refused():
    images = np.zeros((2, 4, 4), np.uint8)
    train, val = from_arrays(images, [0, 1]), from_arrays(images, [1, 2])
    with pytest.raises(DataError, match=r"val has the classes .*same class_names"):
        Splits(train, val, None)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 4, 4, 3)), [0, 1], "expected uint8"),
        (np.zeros((2, 4, 4, 4), np.uint8), [0, 1], "shape"),
        (np.zeros((0, 4, 4, 3), np.uint8), [], "at least one"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "one for each"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.5, 1], "whole numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-1, 1], "Class indices"),
        (np.zeros((2, 4, 4, 3), np.uint8), [[1, 0], [0, 1]], "labels.argmax"),
        (np.zeros((2, 4, 4, 3), np.uint8), ["a", None], "Labels are object"),
        (np.zeros((2, 4, 4, 3), np.uint8), [["a"], ["a", "b"]], "labels differ in shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), 1, "Got 1 as labels"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], [0, 1], "images differ in shape"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(images, labels, words):
    with pytest.raises(DataError, match=words):
        from_arrays(images, labels)


@pytest.mark.parametrize("labels", [["a", "b"], [1j, 2], [1e39, 0]])
@pytest.mark.parametrize("task", ["tags", "values"])
def test_labels_that_are_no_numbers_are_refused(task, labels):
    with pytest.raises(DataError, match="numbers"):
        from_arrays(np.zeros((2, 4, 4), np.uint8), labels, task=task)


@pytest.mark.parametrize("what", ["class_names", "keys"])
def test_a_name_that_is_there_twice_is_refused(what):
    with pytest.raises(DataError, match=f"{what} has 'a' more than once"):
        from_arrays(np.zeros((2, 4, 4), np.uint8), [0, 1], **{what: ["a", "a"]})


def test_take_keeps_class_names_and_order():
    samples = from_arrays(
        np.arange(48, dtype=np.uint8).reshape(3, 4, 4), [0, 1, 2], splits=["train", "", "val"]
    )
    part = samples.take([2, 0])
    assert part.class_names == samples.class_names and part.labels.tolist() == [2, 0]
    assert part.splits == ("val", "train") and part.items[0, 0, 0, 0] == 32
    assert samples.take(np.array([True, False, True])).keys == (samples.keys[0], samples.keys[2])
    assert len(samples.take([])) == 0


def test_a_builtin_set_is_found_again_whatever_folder_has_its_name(tmp_path, monkeypatch):
    _tree(tmp_path, "digits/plots/a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="one class"):
        load_samples("digits")
    assert len(load_again("builtin:digits")) == 1797


def test_images_that_moved_are_asked_for_with_the_place_where_they_were(tmp_path):
    _tree(tmp_path, "before/x/a.png", "before/y/b.png")
    before = tmp_path / "before"
    samples = load_samples(before)
    before.rename(tmp_path / "after")
    with pytest.raises(DataError, match=r"were at .*before, where nothing is now.*--data"):
        load_again(samples.root)
    assert load_again(samples.root, tmp_path / "after").keys == samples.keys


def test_parts_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="one length"):
        Samples(["a"], np.array([0, 1]), ("x", "y"), ("a",), modalities.get("image"))


def test_files_are_listed_without_a_stat_for_each(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(1000):
            (tmp_path / name / f"{i}.jpg").touch()
    calls = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: calls.append(a) or real(*a, **k))
    samples = load_samples(tmp_path)
    assert len(samples) == 2000 and len(calls) < 50
