"""Every kind of image file becomes the RGB that a person sees; damage is named."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from tl_keras.errors import DataError
from tl_keras.modalities.image.decode import ImageError, decide_levels, open_image, resize

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _png(width, height, depth, colour, data, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + extra
        + _chunk(b"IDAT", zlib.compress(data))
        + _chunk(b"IEND", b"")
    )


def _photo(width=64, height=48, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _pixels(path):
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_undone(tmp_path, orientation, extension):
    # Upright: red top left, green top right, blue bottom left, white bottom right.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:] = RED, GREEN
    upright[16:, :24], upright[16:, 24:] = BLUE, WHITE
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{extension}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    assert np.abs(_pixels(path) - upright).mean() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_spoil_a_good_image(tmp_path):
    _photo().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").size == (64, 48)


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED), ((255, 255, 0, 0), BLUE),
     ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 127), (128, 128, 128))],
)  # fmt: skip
def test_cmyk_jpeg_has_its_true_colours(tmp_path, cmyk, rgb):
    Image.new("CMYK", (16, 16), cmyk).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(_pixels(tmp_path / "a.jpg") - rgb).max() <= 3


def test_cmyk_goes_through_its_embedded_profile(tmp_path, monkeypatch):
    seen = []
    real = ImageCms.profileToProfile

    def watched(image, source, target, **more):
        seen.append(image.mode)
        return real(Image.new("LAB", image.size, (255, 128, 128)), ImageCms.createProfile("LAB"),
                    target, **more)  # fmt: skip

    monkeypatch.setattr(ImageCms, "profileToProfile", watched)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.tif", icc_profile=profile)
    assert np.abs(_pixels(tmp_path / "a.tif") - 255).max() <= 1
    assert seen == ["CMYK"]


@pytest.mark.parametrize("kind", ["sRGB", None])
def test_cmyk_with_an_unfit_profile_is_converted_plainly(tmp_path, kind):
    profile = b"no profile" * 20
    if kind:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=profile)
    assert np.abs(_pixels(tmp_path / "a.tif") - RED).max() <= 1


def test_16_bit_grey_png_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 12850, 32896, 65278, 65535]], np.uint16)
    data = b"\x00" + values.astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(_png(6, 1, 16, 0, data))
    assert _pixels(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 50, 128, 254, 255]


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.uint16, 257), (np.int32, 257), (np.float32, 1 / 255)]
)
def test_deep_tiff_is_scaled_not_clipped(tmp_path, dtype, scale):
    grey = np.array([[0, 10, 100, 200, 255]])
    Image.fromarray((grey * scale).astype(dtype)).save(tmp_path / "a.tif")
    assert _pixels(tmp_path / "a.tif")[0, :, 1].tolist() == grey[0].tolist()


@pytest.mark.parametrize(
    ("extremes", "levels"),
    [
        ([("integer", 0, 200)], (0, 255)),
        ([("integer", 3, 900), ("integer", 0, 1023)], (0, 1023)),
        ([("integer", 0, 172), ("integer", 16, 1024)], (0, 4095)),
        ([("integer", 0, 16383)], (0, 16383)),
        ([("integer", 0, 40000)], (0, 65535)),
        ([("integer", -5, 100)], (-5, 100)),
        ([("integer", 0, 70000)], (0, 70000)),
        ([("float", 0, 0.5), ("float", 0.1, 1)], (0, 1)),
        ([("float", 0, 0.5), ("float", 0, 200)], (0, 255)),
        ([("float", -1, 1)], (-1, 1)),
    ],
)
def test_deep_gray_is_scaled_by_what_the_whole_set_uses(extremes, levels):
    kind = extremes[0][0]
    assert decide_levels(extremes) == {kind: levels}


def test_integers_and_floats_of_one_set_have_levels_of_their_own():
    found = decide_levels([("float", 0.0, 1.0), ("integer", 0, 4000)])
    assert found == {"float": (0.0, 1.0), "integer": (0.0, 4095.0)}
    assert decide_levels([]) == {}


def test_12_bits_in_a_16_bit_png_keep_their_gray_levels(tmp_path):
    values = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    dark = np.asarray(open_image(tmp_path / "a.png"))
    seen = np.asarray(open_image(tmp_path / "a.png", levels={"integer": (0, 4095)}))
    assert len(np.unique(dark)) == 17
    assert np.array_equal(seen[..., 1].ravel(), np.arange(256))


def test_float_levels_clip_and_nan_is_black(tmp_path):
    values = np.array([[np.nan, -np.inf, -9, 0, 0.5, 1, 9, np.inf]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    seen = np.asarray(open_image(tmp_path / "a.tif", levels={"float": (-1, 1)}))
    assert seen[0, :, 0].tolist() == [0, 0, 0, 128, 191, 255, 255, 255]


def test_16_bit_rgb_png_keeps_its_colours(tmp_path):
    values = np.array([[65535, 0, 32896], [257, 12850, 65278]], np.uint16)
    data = b"\x00" + values.astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(_png(2, 1, 16, 2, data))
    assert _pixels(tmp_path / "a.png")[0].tolist() == [[255, 0, 128], [1, 50, 254]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_alpha_is_laid_on_white(tmp_path, mode, extension):
    pixels = {"RGBA": [[(255, 0, 0, 255), (255, 0, 0, 0), (255, 0, 0, 128)]],
              "LA": [[(0, 255), (0, 0), (0, 128)]]}[mode]  # fmt: skip
    Image.fromarray(np.array(pixels, np.uint8)).convert(mode).save(tmp_path / f"a.{extension}")
    first = 255 if mode == "RGBA" else 0
    seen = _pixels(tmp_path / f"a.{extension}")[0]
    assert seen[0].tolist() == ([255, 0, 0] if mode == "RGBA" else [0, 0, 0])
    assert seen[1].tolist() == [255, 255, 255]
    assert np.abs(seen[2] - [max(first, 127), 127, 127]).max() <= 1


def test_palette_with_transparency_is_laid_on_white(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=1)
    assert _pixels(tmp_path / "a.png")[0].tolist() == [list(RED), list(WHITE), list(BLUE)]
    image.save(tmp_path / "b.png", transparency=b"\xff\xff\x80")
    assert np.abs(_pixels(tmp_path / "b.png")[0] - [RED, GREEN, (127, 127, 255)]).max() <= 1


def test_plain_palette_grey_and_1_bit_come_out_as_rgb(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png")
    Image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / "l.png")
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "one.png")
    assert _pixels(tmp_path / "p.png")[0].tolist() == [list(RED), list(BLUE)]
    assert _pixels(tmp_path / "l.png")[0].tolist() == [[7] * 3, [200] * 3]
    assert _pixels(tmp_path / "one.png")[0].tolist() == [[0] * 3, [255] * 3]


def test_grey_and_rgb_png_with_a_transparent_colour_show_white_there(tmp_path):
    grey = _png(2, 1, 8, 0, b"\x00\x07\xc8", _chunk(b"tRNS", b"\x00\x07"))
    rgb = _png(2, 1, 8, 2, b"\x00" + bytes(RED) + bytes(BLUE), _chunk(b"tRNS", b"\0\xff\0\0\0\0"))
    (tmp_path / "l.png").write_bytes(grey)
    (tmp_path / "rgb.png").write_bytes(rgb)
    assert _pixels(tmp_path / "l.png")[0].tolist() == [[255] * 3, [200] * 3]
    assert _pixels(tmp_path / "rgb.png")[0].tolist() == [list(WHITE), list(BLUE)]


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tif"])
def test_animations_show_their_first_frame(tmp_path, extension):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    path = tmp_path / f"a.{extension}"
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        **{"webp": {"lossless": True}}.get(extension, {}),
    )
    assert np.abs(_pixels(path) - RED).max() <= 1


def test_the_content_counts_not_the_extension(tmp_path):
    _photo().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (64, 48)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_arrays_become_rgb_images(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = np.broadcast_to(array.reshape(5, 7, -1), (5, 7, 3))
    assert np.array_equal(_pixels(array), expected)


def _truncated(kind):
    buffer = io.BytesIO()
    _photo(640, 480).save(buffer, kind)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


DAMAGED = {
    "half.jpg": (lambda: _truncated("JPEG"), "cut short"),
    "half.png": (lambda: _truncated("PNG"), "cut short"),
    "half.webp": (lambda: _truncated("WEBP"), "cut short"),
    "half.bmp": (lambda: _truncated("BMP"), "cut short"),
    "head.jpg": (lambda: _truncated("JPEG")[:15], "cut short"),
    "empty.jpg": (lambda: b"", "zero bytes"),
    "text.jpg": (lambda: b"hello, this is a note", "no image (it starts with b'hello, this ')"),
    "page.png": (lambda: b"<html><body>404</body></html>", "no image"),
    "script.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
    "bomb.png": (lambda: _png(100_000, 100_000, 8, 2, b"\0" * 99), "decompression bomb"),
    "crc.png": (lambda: _png(9, 9, 8, 2, b"\0" * 252).replace(b"IDAT", b"IDBT"), "cut short"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_sound_image_is_named_with_its_reason(tmp_path, name):
    make, reason = DAMAGED[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / name)
    assert reason in caught.value.reason
    assert name in str(caught.value)
    assert isinstance(caught.value, DataError)


NOISE = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6
ENCODINGS = {
    "png": {"format": "PNG"},
    "png, turned": {"format": "PNG", "exif": TURNED},
    "animated png": {"format": "PNG", "save_all": True},
    "jpeg": {"format": "JPEG", "exif": TURNED},
    "progressive jpeg": {"format": "JPEG", "progressive": True},
    "gif": {"format": "GIF", "save_all": True},
    "webp": {"format": "WEBP", "exif": TURNED},
    "animated webp": {"format": "WEBP", "save_all": True},
    "tiff": {"format": "TIFF", "exif": TURNED},
    "tiff pages": {"format": "TIFF", "save_all": True, "compression": "tiff_lzw"},
    "deflated tiff": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "bmp": {"format": "BMP"},
    "avif": {"format": "AVIF", "exif": TURNED},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ENCODINGS)
def test_three_damaged_bytes_are_accepted_exactly_where_pillow_accepts_them(tmp_path, name):
    frames = [Image.fromarray(frame) for frame in NOISE]
    more = {"append_images": frames[1:]} if "save_all" in ENCODINGS[name] else {}
    frames[0].save(tmp_path / "whole", **ENCODINGS[name], **more)
    whole = (tmp_path / "whole").read_bytes()
    generator, wrong = np.random.default_rng(1), []
    for number in range(100):
        spoilt = bytearray(whole)
        for place in generator.integers(8, len(whole), 3):
            spoilt[place] = generator.integers(256)
        (tmp_path / "spoilt").write_bytes(spoilt)
        alone = True
        try:
            Image.open(tmp_path / "spoilt").convert("RGB")
        except Exception:  # noqa: BLE001 - whatever Pillow raises
            alone = False
        try:
            open_image(tmp_path / "spoilt")
        except ImageError:
            if alone:
                wrong.append((number, "refused"))
        else:
            if not alone:
                wrong.append((number, "accepted"))
    assert not wrong


def test_a_bomb_is_refused_from_its_header_alone(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(DAMAGED["bomb.png"][0]())

    def decoding(self):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    with pytest.raises(ImageError, match="decompression bomb: .*10000000000 pixels"):
        open_image(tmp_path / "bomb.png")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_and_a_device_are_named_and_nobody_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="a named pipe"):
        open_image(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="a device"):
        open_image("/dev/zero")


@pytest.mark.parametrize(
    ("start", "words"),
    [(b"\0\0\0\x1cftypheic", r"HEIC.*tl_keras\[heif\]"), (b"\xff\x0a", "JPEG XL.*save it as"),
     (b"\0\0\0\x18ftypmp42", "no image but a film"), (b"%PDF-1.7", "a PDF"),
     (b"RIFF\x24\0\0\0WAVEfmt ", "no image but a film or sound")],
)  # fmt: skip
def test_a_format_that_is_not_read_is_named_with_the_cure(tmp_path, monkeypatch, start, words):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a.jpg").write_bytes(start + bytes(99))
    with pytest.raises(ImageError, match=words):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("extension", ["avif", "heic"])
def test_avif_and_with_its_extra_heic_are_read(tmp_path, extension):
    if extension == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    _photo().save(tmp_path / f"a.{extension}", quality=95)
    assert np.abs(_pixels(tmp_path / f"a.{extension}") - np.asarray(_photo())).mean() < 8


def test_pillow_itself_is_left_as_it_was(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    (tmp_path / "half.jpg").write_bytes(_truncated("JPEG"))
    with pytest.raises(ImageError):
        open_image(tmp_path / "half.jpg")
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before == (89478485, False)


def test_reduced_decoding_keeps_twice_the_size_and_nearly_every_value(tmp_path):
    _photo(1600, 1200).save(tmp_path / "a.jpg", quality=92)
    full, reduced = open_image(tmp_path / "a.jpg"), open_image(tmp_path / "a.jpg", 128)
    assert full.size == (1600, 1200)
    assert reduced.size == (400, 300)
    difference = resize(full, 128).astype(int) - resize(reduced, 128)
    assert np.abs(difference).mean() < 1
    assert open_image(tmp_path / "a.jpg", 1000).size == (1600, 1200)


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(Image.fromarray(stripes), 8)
    assert small.shape == (8, 8, 3) and small.dtype == np.uint8
    assert np.abs(small.astype(int) - 128).max() < 10


def test_crop_takes_the_central_square_and_stretch_takes_all():
    image = Image.new("RGB", (90, 30), RED)
    image.paste(BLUE, (30, 0, 60, 30))
    assert (resize(image, 10, "crop") == BLUE).all()
    assert (resize(image, 10, "stretch")[:, 0] == RED).all()
    with pytest.raises(DataError, match="'pad'"):
        resize(image, 10, "pad")


def test_an_error_survives_the_way_between_processes():
    import copy

    error = copy.copy(ImageError("a.jpg", "zero bytes"))
    assert (error.path, error.reason) == ("a.jpg", "zero bytes")


def test_lab_tiff_comes_out_as_rgb(tmp_path):
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "white.tif")
    Image.new("LAB", (4, 4), (0, 128, 128)).save(tmp_path / "black.tif")
    assert _pixels(tmp_path / "white.tif").min() >= 250
    assert _pixels(tmp_path / "black.tif").max() <= 5
