"""check-data --labels finds what was put wrong, and its page makes a CSV file that fit reads."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image
from test_analysis_near_duplicates import scene
from typer.testing import CliRunner

from tl_keras.cli.app import app
from tl_keras.data.sources import load_samples

SMALL = ("--base", "small_resnet", "--weights", "none", "--size", "32")


def tinted(seed, channel):
    pixels = np.asarray(scene(seed, (120, 100)), float) * 0.5
    pixels[..., channel] += 120
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes told by their color, in splits; two wrong labels, and a copy in the test."""
    root = tmp_path_factory.mktemp("check") / 'photos, "all"'
    for part, count in (("train", 24), ("test", 8)):
        for channel, name in enumerate(("red", "green")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                seed = 1000 * (part == "test") + 100 * channel + number
                tinted(seed, channel).save(root / part / name / f"{number}.png")
    for number in (3, 4):
        shutil.move(root / f"train/red/{number}.png", root / f"train/green/wrong{number}.png")
    Image.open(root / "test/red/0.png").resize((70, 60)).save(root / "train/red/again.jpg")
    return root


@pytest.fixture(scope="module")
def checked(photos, tmp_path_factory):
    """The page and the figures of one check."""
    page = tmp_path_factory.mktemp("page") / "check.html"
    said = CliRunner().invoke(
        app, ["check-data", str(photos), "--labels", *SMALL, "--out", str(page), "--json"]
    )
    assert said.exit_code == 0, said.output
    return page, json.loads(said.stdout)


def test_wrong_labels_and_copies_across_splits_are_found(checked):
    _, facts = checked
    found = [one["key"] for one in facts["suspects"]]
    assert set(found[:2]) == {"train/green/wrong3.png", "train/green/wrong4.png"}
    assert facts["suspects"][0]["suggested"] == "red"
    assert facts["near_duplicates"] == [
        {"kind": "leak", "keys": ["test/red/0.png", "train/red/again.jpg"]}
    ]
    assert facts["accuracy"]["value"] > 0.9


def test_the_page_is_whole_in_itself_and_another_file_is_never_replaced(checked, photos, tmp_path):
    page, _ = checked
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "wrong3.png" in text and "in two splits" in text
    other = tmp_path / "mine.html"
    other.write_text("precious")
    said = CliRunner().invoke(app, ["check-data", str(photos), "--labels", "--out", str(other)])
    assert said.exit_code and "no page of check-data" in said.output
    assert other.read_text() == "precious"
    for option in (("--base", "mobilenet_v2"), ("--size", "64"), ("--out", "new.html")):
        said = CliRunner().invoke(app, ["check-data", str(photos), *option])
        assert said.exit_code and "--labels" in said.output


def browser():
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


ACTIONS = """
<script>
addEventListener("load", () => {
  const made = [];
  URL.createObjectURL = () => "#";
  window.Blob = class { constructor(parts) { made.push(...parts); } };
  document.querySelector('[data-all="relabel"]').click();
  document.querySelector("[data-copies]").click();
  document.getElementById("save").click();
  document.body.textContent = "CSV<" + encodeURIComponent(made.join("")) + ">";
});
</script>
"""


@pytest.mark.slow
def test_what_is_ticked_in_a_browser_becomes_a_csv_file_that_is_read_back(
    checked, photos, tmp_path
):
    page, facts = checked
    acting = tmp_path / "acting.html"
    acting.write_text(page.read_text("utf-8").replace("</body>", f"{ACTIONS}</body>"), "utf-8")
    done = subprocess.run(
        [browser(), "--headless", "--no-sandbox", "--disable-gpu",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", acting.as_uri()],
        check=True, capture_output=True, timeout=120, text=True,
    )  # fmt: skip
    found = re.search("CSV&lt;(.*?)&gt;", done.stdout)
    assert found, done.stdout[-500:]
    corrected = tmp_path / "corrected.csv"
    corrected.write_bytes(unquote_to_bytes(found[1]))
    before, after = load_samples(photos), load_samples(corrected)
    named = {Path(key).relative_to(photos).as_posix(): i for i, key in enumerate(after.keys)}
    # The copy in train is gone, the one in the test split stays; what was wrong is red now.
    assert set(before.keys) - set(named) == {"train/red/again.jpg"}
    suspects = {one["key"]: one["suggested"] for one in facts["suspects"]}
    for key, label in zip(before.keys, before.labels, strict=True):
        if key in named:
            now = after.class_names[after.labels[named[key]]]
            assert now == suspects.get(key, before.class_names[label])
            assert after.splits[named[key]] == before.splits[before.keys.index(key)]


def test_tags_and_numbers_are_checked_and_exported_as_they_came(tmp_path):
    rows = []
    for number in range(24):
        channel = number % 2
        tinted(number, channel).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", channel, 1 - channel, 10.5 * channel + number / 100))
    for name, heads, task in (
        ("tags.csv", ("path", "green", "red"), "tags"), ("values.csv", ("path", "x"), "values"),
    ):  # fmt: skip
        with open(tmp_path / name, "w", newline="") as file:
            picked = [row[:3] if task == "tags" else (row[0], row[3]) for row in rows]
            csv.writer(file).writerows([heads, *picked])
        page = tmp_path / f"{task}.html"
        words = ["check-data", str(tmp_path / name), "--labels", *SMALL, "--task", task]
        said = CliRunner().invoke(app, [*words, "--out", str(page)])
        assert said.exit_code == 0, said.output
        kept = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])
        assert kept["paths"][5] == str(tmp_path / "5.png")
        assert kept["labels"][5] == ("green" if task == "tags" else repr(float(np.float32(10.55))))
        assert kept["columns"] == ([] if task == "tags" else ["x"])


def test_fit_drops_suspects_only_where_that_helps_and_says_which(photos, tmp_path):
    run = tmp_path / "run"
    words = ["fit", str(photos), "--out", str(run), *SMALL, "--epochs", "1", "--plan", "probe"]
    words += ["--drop-suspects", "--seed", "2", "--val", "0.05", "--augment", "none"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    record = json.loads((run / "run.json").read_text("utf-8"))
    drop, left = record["data_quality"]["drop"], record["data"]["left_out"]
    best = max(drop["tried"], key=lambda one: one["gain"])
    assert (len(left) > 0) == (best["low"] > 0) and len(left) == drop["dropped"]
    assert {one["path"] for one in left} == {"train/green/wrong3.png"}
    assert [one["key"] for one in record["data_quality"]["suspects"]] == ["train/green/wrong3.png"]
    assert drop["reason"] in record["data"]["notes"]
    rows = (run / "split.csv").read_text("utf-8")
    assert all(one["path"] not in rows and "looks like red" in one["reason"] for one in left)
    page = (run / "report.html").read_text("utf-8")
    assert "Data that may harm" in page and "wrong3.png" in page and "in two splits" in page
    again = record["data_quality"]["previews"]["train/red/again.jpg"]
    assert Image.open(run / again).format == "JPEG"


def test_suspects_of_tags_are_not_dropped_and_nothing_is_left_behind(tmp_path):
    for number in range(12):
        tinted(number, number % 2).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", "ab"[number % 2]) for number in range(12)]
    with open(tmp_path / "tags.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    words = ["fit", str(tmp_path / "tags.csv"), "--task", "tags", "--drop-suspects", *SMALL]
    said = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")])
    assert said.exit_code and "one class a sample" in said.output
    assert not (tmp_path / "run").exists()
