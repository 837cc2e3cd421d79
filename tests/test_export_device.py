"""The program that a bundle carries reads files as training does."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from export.device.run_image import read_image
from tl_keras.modalities.image.decode import open_image, resize

RNG = np.random.default_rng(0)
GRAY = np.linspace(0, 1, 40 * 30).reshape(30, 40)
RGB = RNG.integers(0, 256, (30, 40, 3)).astype(np.uint8)


def deep(top, kind):
    return Image.fromarray((GRAY * top).astype(kind))


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(path, exif=exif)


def with_profile(path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RGB).convert("CMYK").save(path, icc_profile=profile)


FILES = {
    "16 bits.png": lambda path: deep(65535, np.uint16).save(path),
    "12 bits.png": lambda path: deep(4095, np.uint16).save(path),
    "16 bits.tiff": lambda path: deep(60000, np.uint16).save(path),
    "32 bits.tiff": lambda path: deep(2**31 - 1, np.int32).save(path),
    "signed.tiff": lambda path: Image.fromarray((GRAY * 999 - 500).astype(np.int32)).save(path),
    "to 1.tiff": lambda path: deep(1.0, np.float32).save(path),
    "to 255.tiff": lambda path: deep(255.0, np.float32).save(path),
    "to 9000.tiff": lambda path: deep(9000.0, np.float32).save(path),
    "nan.tiff": lambda path: Image.fromarray(np.where(GRAY > 0.9, np.nan, GRAY)
                                             .astype(np.float32)).save(path),
    "transparent.png": lambda path: Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(path),
    "gray, transparent.png": lambda path: Image.fromarray(RGB[..., :2], "LA").save(path),
    "palette.gif": lambda path: Image.fromarray(RGB).quantize(16).save(path, transparency=3),
    "one bit.png": lambda path: deep(255, np.uint8).convert("1").save(path),
    "turned.jpg": turned,
    "ink.jpg": lambda path: Image.fromarray(RGB).convert("CMYK").save(path),
    "ink with a profile.jpg": with_profile,
    "large.jpg": lambda path: Image.fromarray(RGB).resize((900, 700)).save(path),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("name", FILES)
def test_the_program_sees_the_very_pixels_that_training_sees(tmp_path, name):
    FILES[name](tmp_path / name)
    expected = resize(open_image(tmp_path / name, 16), 16)
    assert 0 < expected.mean() < 255 and np.ptp(expected) > 10
    np.testing.assert_array_equal(read_image(str(tmp_path / name), 16, 16), expected)


@pytest.mark.parametrize("name", ["12 bits.png", "to 9000.tiff", "signed.tiff"])
def test_the_program_takes_black_and_white_from_the_manifest(tmp_path, name):
    FILES[name](tmp_path / name)
    levels = {"integer": (0.0, 4095.0), "float": (-1000.0, 20000.0)}
    expected = resize(open_image(tmp_path / name, 16, levels), 16)
    given = read_image(str(tmp_path / name), 16, 16, levels)
    np.testing.assert_array_equal(given, expected)
    assert not np.array_equal(given, read_image(str(tmp_path / name), 16, 16))
