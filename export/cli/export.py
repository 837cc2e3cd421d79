"""The command run: write a finished run as a bundle of proven files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show, table
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    from export.source import Source
    from export.variant import Attempt, Variant

__all__ = ["export_run"]


def export_run(  # noqa: PLR0913 - a command's options are its arguments
    run: opt.Run,
    to: Annotated[
        str, typer.Option(help="tflite and onnx, with a comma between.")
    ] = "tflite,onnx",
    quantize: Annotated[
        str,
        typer.Option(
            help="Smaller files, with commas between. Both formats: fp16, int8, "
            "weight_int8, dynamic_int8. tflite: int8_uint8_out, int8_in_out, "
            "int8_int16_activations, int4, int4_octav, "
            "int4_gptq, dynamic_int4, dynamic_int4_block32, dynamic_int4_hadamard. onnx: "
            "int8_uint8_in, int8_symmetric (TensorRT), weight_int4_block32.",
            show_default="none",
        ),
    ] = "",
    max_drop: Annotated[
        float | None,
        opt.number("Accuracy that a quantized file may lose.", 0, 1, show_default="0.01"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Bundle to write: a folder, or x.zip.", show_default="RUN/export"),
    ] = None,
    data: opt.MovedData = None,
    samples: Annotated[
        int | None,
        opt.number("Choose and compare on at most so many images each.", 1, 1_000_000_000,
               show_default="all"),
    ] = None,
    unlabeled: Annotated[
        str | None,
        typer.Option(
            help="A folder of images without labels, such as the device will see, to decide by.",
            show_default="training images",
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Allow quantization-aware training.")
    ] = True,
    originals: Annotated[
        str,
        typer.Option(
            help="Whole image files that the bundle carries as a proof: own (a few of the data "
            "set, as they are), none, or an image or a folder of images to take instead.",
        ),
    ] = "own",
    views: Annotated[
        str,
        typer.Option(
            help="Average inside the files over views of the image, at as many times the cost: "
            "flip, crops, or flip,crops.",
            show_default="the image alone",
        ),
    ] = "",
    resize_in_graph: Annotated[
        bool,
        typer.Option(
            "--resize-in-graph",
            help="The files take images of any size and resize them as the training did, to the "
            "bit; onnx alone.",
        ),
    ] = False,
    license: Annotated[
        str, typer.Option(help="Of the model, for its card, as in apache-2.0.", show_default=False)
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    debug: opt.Debug = False,
) -> None:  # fmt: skip
    """Turn a finished run into a bundle of proven files.

    Files in float32 must give the answers of Keras, and quantized ones may lose no more than
    --max-drop, or nothing is written and the exit code is 3. Where one loses more, repairs are
    tried one after the other, from more calibration images to quantization-aware training.

    What decides is validation images, those of --unlabeled, and training images where these are
    few; the figures come from the test images, or from others that were held back.

    Example:  tl-export runs/photos --quantize int8,fp16 --out bundle.zip
    """
    target = out or run / "export"
    with error_boundary(debug, lambda: "Nothing was written."):
        from export.convert.resize import check_formats
        from export.pipeline import ExportConfig, check_config, check_destination, export
        from export.quantize.search import Limits
        from export.source import from_run
        from tl_keras.models.views import parse_views
        from tl_keras.runs.directory import RunDirectory

        opt.refuse_unused("--max-drop", max_drop, bool(quantize), "--quantize")
        opt.refuse_unused("--no-train", not train, bool(quantize), "--quantize")
        opt.refuse_unused("--unlabeled", unlabeled, bool(quantize), "--quantize")
        limits = Limits(max_drop=0.01 if max_drop is None else max_drop, train=train)
        formats, recipes = opt.split_words(to), opt.split_words(quantize)
        config = ExportConfig(formats, recipes, limits, license=license)
        _, notes = check_config(config)
        root = data or RunDirectory(run).fact("data", "root")
        names = parse_views(views)
        if resize_in_graph:
            check_formats(formats)
        check_destination(target, force, root, unlabeled)
        start_tensorflow()
        with bars(still=True) as bar:
            bar("reading the run", 0, 1)
            source = from_run(
                run, data=data, samples=samples, unlabeled=unlabeled, originals=originals,
                views=names, resize_in_graph=resize_in_graph,
            )  # fmt: skip
            made = export(source, config, target, force=force, progress=bar)
        _show(made, notes, target, source)


def _show(made: Sequence[Variant], notes: Sequence[str], out: Path, source: Source) -> None:
    from export.source import OWN

    columns = ("file", "size", "accuracy", "drop", "labels equal", "ms")
    rows = table(f"written to {out}", *columns)
    for one in made:
        proof = one.verdict
        rows.add_row(
            one.name,
            f"{one.bytes / 1e6:.2f} MB",
            "" if proof.accuracy is None else f"{100 * proof.accuracy:.2f} %",
            f"{100 * proof.drop:+.2f}",
            f"{round(proof.agreement * proof.count)} of {proof.count}",
            f"{one.latencies[-1].median_ms:.2f}" if one.latencies else "",
        )
    show(rows)
    duties = source.describe_images()
    said = {duty: " and ".join(f"{n} {of}" for of, n in duties[duty].items()) for duty in duties}
    figures = f"figures: {said['figures']}"
    if any(one.attempts for one in made):
        figures += f"; quantized files were chosen by {said['choice']}"
    remarks = [figures, *notes, *(f"{one.name}: {line}" for one in made for line in _remarks(one))]
    if source.originals == OWN:
        whole = ", and as they are," * bool(source.files)
        remarks.append(
            f"the bundle holds some {source.modality.noun}s of the data set, as the model sees them"
            f"{whole} as a proof; --originals none keeps them out"
        )
    show(*remarks)


def _remarks(variant: Variant) -> list[str]:
    tried = [_describe_attempt(one) for one in variant.attempts]
    strategies = ["; ".join(tried)] if len(tried) > 1 else []
    return [*strategies, *variant.notes]


def _describe_attempt(attempt: Attempt) -> str:
    word = "passed" if attempt.passed else "failed"
    note = f" ({attempt.note})" if attempt.note else ""
    return f"{attempt.strategy}{note} {word} in {attempt.seconds:.0f} s: {attempt.why}"
