"""Let a model answer for several views of one image and average what it gives, inside its graph.

Averaging over mirrored and cropped copies of the image at test time is as old as convolutional
classifiers (Krizhevsky et al., "ImageNet classification with deep convolutional neural networks",
NeurIPS 2012, section 4.1: corners, center, mirrored); it costs as many answers as there are views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError, PlanError
from tl_keras.utils.suggest import did_you_mean

if TYPE_CHECKING:
    import keras

__all__ = ["CROP", "VIEWS", "average_views", "count_views", "parse_views"]

VIEWS = {
    "flip": "mirrored left and right",
    "crops": "the four corners and the center, each 7/8 of the side, enlarged to the whole",
}
"""What each name adds to the image itself; "flip" mirrors what "crops" adds, too."""
CROP = 7 / 8


def parse_views(text: str) -> tuple[str, ...]:
    """Read names joined by commas, such as "flip" or "flip,crops"; "" and "none" are no views.

    Raises:
        PlanError: A name is unknown.
    """
    words = [word.strip().lower() for word in text.split(",")]
    names = tuple(dict.fromkeys(word for word in words if word not in ("", "none")))
    for name in names:
        if name not in VIEWS:
            known = [*VIEWS, "none"]
            raise PlanError(
                f"unknown view '{name}' in '{text}'.{did_you_mean(name, known, 2, 0.5)} Known, "
                f"with commas between: {', '.join(known)}"
            )
    return names


def count_views(names: tuple[str, ...]) -> int:
    """Return how many answers are averaged."""
    return (1 + 5 * ("crops" in names)) * (1 + ("flip" in names))


def average_views(model: keras.Model, names: tuple[str, ...]) -> keras.Model:
    """Return a model of the same input that gives the mean of a model's outputs for several views.

    Probabilities are averaged, not logits; numbers as they are. All views go through the model as
    one batch, so that its weights are in the graph once; they are shared with `model`.

    Args:
        model: Takes one image, square or not, and gives one row of numbers.
        names: From :func:`parse_views`; with none, `model` itself is returned.

    Raises:
        ModelError: The model takes no single image, or gives several outputs.
    """
    if not names:
        return model
    import keras

    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    one = len(shapes) == len(model.outputs) == 1
    if not one or len(shapes[0]) != 3 or None in shapes[0] or shapes[0][2] not in (1, 3):
        raise ModelError(
            f"'{model.name}' takes {', '.join(map(str, shapes))} and gives {len(model.outputs)} "
            "output(s); views are for a model of one image of a fixed size and one output"
        )
    source = model.inputs[0]
    entry = keras.Input(shapes[0], dtype=source.dtype, name=source.name)
    views = [entry, *(_cut(entry) if "crops" in names else ())]
    if "flip" in names:
        views += [view[:, :, ::-1, :] for view in views]
    ops = keras.ops
    answers = model(ops.concatenate(views, axis=0), training=False)
    rows = ops.reshape(answers, (len(views), -1, *answers.shape[1:]))
    return keras.Model(entry, ops.mean(rows, axis=0), name=model.name)


def _cut(image: Any) -> list[Any]:
    """The four corners and the center; what is enlarged needs no antialias."""
    import keras

    height, width = image.shape[1:3]
    high, wide = round(CROP * height), round(CROP * width)
    down, right = height - high, width - wide
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    return [
        keras.ops.image.resize(
            image[:, top : top + high, left : left + wide, :], (height, width), "bilinear"
        )
        for top, left in corners
    ]
