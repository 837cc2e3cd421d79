"""The check names every bad image at once, and hashes what the good ones show."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras import modalities
from tl_keras.data.samples import fingerprint, from_arrays
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import assign, find_shared
from tl_keras.modalities.image.modality import check_images, pixel_digest


def _photo(seed, size=(40, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def _folder(root, count=6):
    for c, name in enumerate("ab"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            _photo(100 * c + i).save(root / name / f"{i}.jpg")
    return root


def _spoilt(root):
    _folder(root)
    (root / "a/empty.jpg").touch()
    (root / "a/text.jpg").write_text("no image at all")
    whole = (root / "b/1.jpg").read_bytes()
    (root / "b/1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "b/film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    return root


def test_all_bad_images_are_listed_with_their_reasons_and_nothing_else(tmp_path):
    samples = load_samples(_spoilt(tmp_path))
    report = check_images(samples)
    reasons = {os.path.relpath(bad.path, tmp_path): bad.reason for bad in report.bad}
    assert set(reasons) == {"a/empty.jpg", "a/text.jpg", "b/1.jpg", "b/film.mp4"}
    assert reasons["a/empty.jpg"] == "zero bytes"
    assert "no image" in reasons["a/text.jpg"] and "no image" in reasons["b/film.mp4"]
    assert "cut short" in reasons["b/1.jpg"]
    assert [samples.items[bad.index] for bad in report.bad] == [bad.path for bad in report.bad]
    assert len(report.good) == len(samples) - 4
    assert all(bool(digest) == (i in report.good) for i, digest in enumerate(report.digests))


def test_the_error_names_each_and_the_way_out(tmp_path):
    message = str(check_images(load_samples(_spoilt(tmp_path))).error())
    assert message.startswith("4 of 15 images")
    assert message.count("\n  ") == 4 and "--skip-bad" in message


def test_a_long_list_is_cut_at_twenty_with_a_count(tmp_path):
    _folder(tmp_path)
    for i in range(30):
        (tmp_path / "a" / f"bad{i}.jpg").touch()
    message = str(check_images(load_samples(tmp_path)).error())
    assert message.count("zero bytes") == 20 and "and 10 more" in message


def test_a_file_that_vanishes_is_reported_not_raised(tmp_path):
    samples = load_samples(_folder(tmp_path))
    os.remove(samples.items[3])
    assert [bad.reason for bad in check_images(samples).bad] == ["no such file"]


@contextlib.contextmanager
def _as_anyone():
    """Be an ordinary user where the tests run as root, who may read all."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has permissions that chmod sets")
def test_a_file_that_may_not_be_read_is_reported():
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as place:
        samples = load_samples(_folder(Path(place)))
        os.chmod(place, 0o755)
        os.chmod(samples.items[0], 0)
        with _as_anyone():
            found = check_images(samples).bad
    assert [(bad.path, "permission" in bad.reason) for bad in found] == [(samples.items[0], True)]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_workers_changes_nothing(tmp_path, workers):
    samples = load_samples(_spoilt(tmp_path))
    assert check_images(samples, workers=workers) == check_images(samples, workers=3)


def test_progress_counts_up_to_the_total(tmp_path):
    seen = []
    check_images(load_samples(_folder(tmp_path, 30)), progress=lambda *pair: seen.append(pair))
    assert seen == sorted(seen) and seen[-1] == (60, 60) and len(seen) > 2


def test_an_interrupted_check_stops_soon(tmp_path):
    samples = load_samples(_folder(tmp_path, 200))
    seen = []

    def interrupt(done, total):
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_images(samples, workers=1, progress=interrupt)
    assert len(seen) == 1


def test_the_digest_sees_pixels_not_files(tmp_path):
    _photo(1).save(tmp_path / "a.png", compress_level=0)
    _photo(1).save(tmp_path / "b.png", compress_level=9)
    turned = Image.Exif()
    turned[0x0112] = 3
    _photo(1).transpose(Image.Transpose.ROTATE_180).save(tmp_path / "c.png", exif=turned)
    _photo(2).save(tmp_path / "d.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png,y\nc.png,x\nd.png,y\n")
    first, second, third, other = check_images(load_samples(tmp_path / "t.csv")).digests
    assert first == second == third != other


def test_the_digest_sees_the_shape_and_every_band():
    assert pixel_digest(Image.new("RGB", (6, 4))) != pixel_digest(Image.new("RGB", (4, 6)))
    tall = Image.new("RGB", (3000, 3000))
    changed = tall.copy()
    changed.putpixel((2999, 2999), (0, 0, 1))
    assert pixel_digest(tall) != pixel_digest(changed)


def test_levels_of_deep_gray_are_decided_over_the_set_and_digests_see_every_bit(tmp_path):
    values = np.full((3, 4, 4), 800, np.uint16)
    values[1, 0, 0], values[2, 0, 0] = 801, 4000
    for name, pixels in zip("abc", values):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "1.png")
    samples = load_samples(_folder(tmp_path))
    report = check_images(samples)
    assert report.settings == {"levels": {"integer": [0, 4095]}}
    assert report.notes == ("3 images are deep gray (integers): 0 becomes black and 4095 white",)
    assert len(set(report.digests)) == len(samples)
    again = modalities.get("image", report.settings)
    assert np.asarray(again.open(tmp_path / "c" / "1.png"))[0, 0, 0] == 249
    assert check_images(replace(samples, modality=again)).settings == report.settings
    assert check_images(samples.take([0])).settings == {}
    narrow = modalities.get("image", {"levels": {"integer": [0, 1023]}})
    assert check_images(replace(samples, modality=narrow)).notes == (
        "3 images are deep gray (integers): 0 becomes black and 1023 white; 1 go beyond and are "
        "clipped",
    )
    photos = replace(samples.take([0, 1]), modality=narrow)
    assert check_images(photos).notes == ()


def test_color_of_16_bits_that_uses_fewer_is_told_of(tmp_path):
    from test_modalities_image_decode import _png

    for name, white in (("a", 4095), ("b", 4000)):
        (tmp_path / name).mkdir()
        row = b"\0" + np.linspace(0, white, 12).astype(">u2").tobytes()
        (tmp_path / name / "1.png").write_bytes(_png(4, 2, 16, 2, row * 2))
    samples = load_samples(tmp_path)
    assert check_images(samples).notes[0].startswith("2 color images hold 16 bits a channel")
    assert check_images(samples).settings == {}
    (tmp_path / "a" / "2.png").write_bytes(_png(1, 1, 16, 2, b"\0" + b"\xff" * 6))
    assert check_images(load_samples(tmp_path)).notes == ()


def test_arrays_are_checked_too():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    report = check_images(from_arrays(images, [0, 1] * 10))
    assert not report.bad and len(set(report.digests)) == 20


def test_the_fingerprint_ignores_order_and_sees_labels_names_and_pixels(tmp_path):
    samples = load_samples(_folder(tmp_path))
    digests = check_images(samples).digests
    whole = fingerprint(samples, digests)
    order = np.random.default_rng(0).permutation(len(samples))
    assert fingerprint(samples.take(order), [digests[i] for i in order]) == whole
    assert fingerprint(samples, ("x", *digests[1:])) != whole
    os.rename(tmp_path / "b" / "0.jpg", tmp_path / "a" / "moved.jpg")
    assert fingerprint(load_samples(tmp_path), digests) != whole


def test_a_copy_under_another_name_in_another_split_is_found(tmp_path):
    for split in ("train", "val"):
        _folder(tmp_path / split)
        for name in "ab":
            for i in range(6):
                if split == "val" and i != 3:
                    _photo(ord(name) * 1000 + i).save(tmp_path / split / name / f"{i}.jpg")
    samples = load_samples(tmp_path)
    found = find_shared(samples, check_images(samples).digests, assign(samples))
    assert {pair.keys for pair in found} == {
        ("train/a/3.jpg", "val/a/3.jpg"), ("train/b/3.jpg", "val/b/3.jpg")}  # fmt: skip


def test_memory_does_not_grow_with_the_number_of_images():
    import tracemalloc

    def peak(count):
        one = np.zeros((1, 64, 64, 3), np.uint8)
        samples = from_arrays(one, [0], ["a"], keys=["k"]).take(np.zeros(count, int))
        tracemalloc.start()
        report = check_images(samples, workers=2)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size - len(report.digests) * 150

    assert peak(2000) < peak(200) + 300_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hymenoptera", "clothing10", "rsscn7", "cifar10_5k"])
def test_real_photos_are_sound_and_nowhere_shared(name):
    root = os.environ.get("TL_KERAS_REAL_DATA")
    if not root or not os.path.isdir(os.path.join(root, name)):
        pytest.skip("TL_KERAS_REAL_DATA names no folder with real photos")
    samples = load_samples(os.path.join(root, name))
    report = check_images(samples)
    assert not report.bad
    assert not find_shared(samples, report.digests, assign(samples, groups=report.digests))
