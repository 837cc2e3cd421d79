"""What several files of tests share: a folder of pictures, and one trained run a session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ("red flower", "أخضر ورق", "蓝色 [b]天空")


def draw_folder(root: Path, names: Sequence[str] = NAMES, count: int = 12, seed: int = 0) -> Path:
    """Class folders of noisy pictures, each class brightest in a channel of its own."""
    generator = np.random.default_rng(seed)
    for channel, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 110, (20, 20, 3))
            pixels[..., channel % 3] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def folder(tmp_path):
    return draw_folder(tmp_path / "photos")


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """A small source and its variants (tflite-fp32, tflite-int8, onnx-fp32); change copies only."""
    from bundle_models import toy_source, toy_variants

    source = toy_source()
    return source, toy_variants(source, tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A complete run; read it, change copies only."""
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    place = tmp_path_factory.mktemp("trained")
    photos = draw_folder(place / "photos")
    (photos / NAMES[0] / "broken.jpg").write_bytes(b"hello")
    copied = (photos / NAMES[1] / "0.png").read_bytes()
    (photos / NAMES[1] / "copy.png").write_bytes(copied)
    job = RunConfig.of(
        str(photos), "small_resnet", 16, "none", plan="lp-ft", epochs=(2, 1), test=0.2,
        skip_bad=True,
    )  # fmt: skip
    return train(job, place / "run", command="tl-keras fit photos").path
