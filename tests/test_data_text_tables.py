"""Tables of texts: whatever columns, quotes and line ends they have, the rows come out whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tl_keras.data.sources import load_samples
from tl_keras.errors import DataError


def read(path, task="classes"):
    return load_samples(path, modality="text", task=task)


def texts(samples):
    return [item.value for item in samples.items]


def test_a_csv_keeps_commas_quotes_line_breaks_and_every_letter_of_a_text(tmp_path):
    path = tmp_path / "a.csv"
    rows = [
        "so, so", 'he said ""no""', "two\nlines", "naïve \u4e2d\u6587 \u2028 \U0001f600", "last",
    ]  # fmt: skip
    lines = ["text,label"] + [f'"{row}",{"pn"[i % 2]}' for i, row in enumerate(rows)]
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")
    samples = read(path)
    assert texts(samples) == [row.replace('""', '"') for row in rows]
    assert samples.class_names == ("n", "p") and samples.labels.tolist() == [1, 0, 1, 0, 1]


def test_a_tsv_without_quoting_keeps_its_quotes(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('label\tsentence\n1\t"open and never closed\n0\t`` so "it" goes\n1\tplain\n')
    assert texts(read(path)) == ['"open and never closed', '`` so "it" goes', "plain"]


@pytest.mark.parametrize("head", [("sentence", "label"), ("content", "target"),
                                  ("Review", "Sentiment"), ("question", "label-coarse")])
def test_columns_go_by_the_names_that_data_sets_have(tmp_path, head):
    path = tmp_path / "a.csv"
    path.write_text(f"id,{head[0]},{head[1]}\n1,good,a\n2,bad,b\n")
    samples = read(path)
    assert texts(samples) == ["good", "bad"] and samples.class_names == ("a", "b")


def test_json_lines_give_what_a_csv_gives(tmp_path):
    rows = [("one", "a"), ("two, three", "b"), ('q"uote', "a")]
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "\n".join(f'"{t.replace(chr(34), chr(34) * 2)}",{c}' for t, c in rows))
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"label": c, "text": t}) for t, c in rows))
    one, other = read(tmp_path / "a.csv"), read(tmp_path / "a.jsonl")
    assert one.keys == other.keys and texts(one) == texts(other)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_json_lists_are_tags_and_numbers_are_values(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (
        {"text": "x", "tags": ["b", "a"]}, {"text": "y", "tags": []}, {"text": "z", "tags": "a"})))
    samples = read(path, "tags")
    assert samples.class_names == ("a", "b") and samples.labels.tolist() == [[1, 1], [0, 0], [1, 0]]
    path.write_text('{"text": "x", "score": 0.5}\n{"text": "y", "score": 2}\n')
    assert read(path, "values").labels.tolist() == [[0.5], [2.0]]


def test_a_folder_of_tables_is_split_as_their_names_say(tmp_path):
    for name, text in (("train", "x"), ("dev", "y"), ("test", "z")):
        (tmp_path / f"{name}.tsv").write_text(f"label\ttext\na\t{text}1\nb\t{text}2\n")
    (tmp_path / "SOURCE.txt").write_text("where it is from")
    samples = read(tmp_path)
    assert samples.splits == ("train", "train", "val", "val", "test", "test")
    assert len(samples.where("val")) == 2


def test_folders_of_text_files_are_classes(tmp_path):
    for name in ("neg", "pos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text(f"this is {name}")
    samples = read(tmp_path)
    assert samples.keys == ("neg/1.txt", "pos/1.txt")
    assert [samples.modality.open(item) for item in samples.items] == ["this is neg", "this is pos"]


def test_keys_stay_when_rows_move_and_tell_repeated_texts_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nsame,a\nother,b\nsame,a\n")
    first = read(path)
    path.write_text("text,label\nnew,b\nother,b\nsame,a\nsame,a\n")
    second = read(path)
    assert set(first.keys) < set(second.keys) and len(set(first.keys)) == 3
    assert first.keys[1].startswith("other ")


@pytest.mark.parametrize(("content", "message"), [
    ("a,b\nx,y\n", "none is named text"),
    ("text\nx\n", "none is named label"),
    ("text;label\nx;y\n", "separated by commas"),
    ("text,label\nso, so,a\nx,b\n", "line 2: 3 fields, expected 2.*quotes"),
    ("text,label\n\"open,a\nx,b\n", "Is a quote open"),
    ("text,label\n", "no rows"),
    ("", "is empty"),
    ("text,label\n" + "".join(f"t{i},{i / 7:.4f}\n" for i in range(20)), "text-values"),
    ("text,text,label\nx,y,a\n", "more than once"),
    ("text,label,split\nx,a,train\ny,b,soon\n", "unknown split 'soon'"),
])  # fmt: skip
def test_a_table_that_makes_no_sense_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [
    ("[1, 2]\n", "expected a JSON object"), ('{"text": "x"', "line 1"),
    ('{"text": "x", "label": "a"}\n{"text": "y"}\n', "line 2: has no 'label'"),
    ('{"text": {"a": 1}, "label": "a"}\n', "is an object"),
])  # fmt: skip
def test_lines_that_are_no_records_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_another_encoding_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\ncaf\u00e9,a\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read(path)


def test_a_megabyte_of_text_passes_the_table_and_is_told_of_by_the_check(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'x' * 2**20},a\nshort,b\n\"  \",b\n")
    report = (samples := read(path)).modality.check(samples)
    assert [one.index for one in report.bad] == [0, 2]
    assert "1,048,576 characters" in report.bad[0].reason and report.bad[1].reason == "is empty"
