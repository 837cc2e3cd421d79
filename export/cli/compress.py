"""The command compress: a smaller model by a short fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show, table

if TYPE_CHECKING:
    from export.variant import Variant

__all__ = ["compress"]


def compress(  # noqa: PLR0913 - a command's options are its arguments
    run: opt.Run,
    method: Annotated[
        str, typer.Option(help="qat, prune, prune_2_4, cluster, prune+qat or cluster+qat.")
    ],
    out: Annotated[
        Path, typer.Option(help="Bundle to write, a folder or x.zip, which must not exist.")
    ],
    epochs: Annotated[int, opt.number("Epochs of each step.", 1, 100000)] = 2,
    learning_rate: Annotated[
        float, opt.number("Learning rate at the start.", 0, 10, above=True)
    ] = 1e-4,
    batch_size: opt.BatchSize = 32,
    sparsity: Annotated[
        float | None,
        opt.number("Share of zeros that prune leaves.", 0, 1, above=True, below=True,
               show_default="0.5"),
    ] = None,
    clusters: Annotated[
        int | None, opt.number("Different weights a layer, for cluster.", 2, 256, show_default="32")
    ] = None,
    max_drop: Annotated[
        float, opt.number("Accuracy that may be lost, as a share.", 0, 1)
    ] = 0.01,
    augment: Annotated[
        str,
        typer.Option(help="none, or flip, crop, color, affine and randaugment, with +.",
                     show_default="the run's"),
    ] = "",
    data: opt.MovedData = None,
    originals: Annotated[
        str,
        typer.Option(help="Whole image files in the bundle: own, none, or an image or a folder."),
    ] = "own",
    seed: opt.Seed = 0,
    debug: opt.Debug = False,
) -> None:  # fmt: skip
    """Prune, cluster or quantize a run's model.

    Each is followed by a short fine-tune on the run's images. With qat the file takes uint8
    images and computes in int8; the others also give a plain .keras file. What loses more than
    --max-drop on images that it was not trained with is not written, and the exit code is 3.

    Example:  tl-export compress runs/photos --method prune+qat --out small/
    """
    with error_boundary(debug, lambda: "Nothing was written."):
        from export.compress.fine_tune import FineTune
        from export.compress.methods import CLUSTERS, SPARSITY
        from export.compress.run import CompressConfig, compress_run

        steps = method.split("+")
        opt.refuse_unused("--sparsity", sparsity, "prune" in steps, "--method prune")
        opt.refuse_unused("--clusters", clusters, "cluster" in steps, "--method cluster")
        with bars(still=True) as progress:
            how = FineTune(epochs, learning_rate, batch_size, seed, augment, progress)
            config = CompressConfig(
                method, how, sparsity or SPARSITY, clusters or CLUSTERS, max_drop
            )
            made = compress_run(
                run, config, out, data=data, originals=originals, progress=progress
            )
        _show(made, out)


def _show(made: Variant, out: Path) -> None:
    columns = ("file", "size", "zipped", "of fp32", "accuracy", "drop", "labels equal")
    rows, proof = table(f"written to {out}", *columns), made.verdict
    rows.add_row(
        made.name,
        f"{made.bytes / 1e6:.2f} MB",
        f"{made.facts['zipped'] / 1e6:.2f} MB",
        f"{made.facts['zipped_of_fp32']:.2f}",
        "" if proof.accuracy is None else f"{100 * proof.accuracy:.2f} %",
        f"{100 * proof.drop:+.2f}",
        f"{round(proof.agreement * proof.count)} of {proof.count}",
    )
    show(rows)
    if pruning := made.facts.get("pruning"):
        losses = pruning["loss"]
        show(
            f"kept: {pruning['kept'].replace('_', '-')} (loss {losses['reconstructed']:.4f} "
            f"reconstructed, {losses['fine_tuned']:.4f} fine-tuned, on {pruning['judged_on']} "
            "training samples)"
        )
    if left := made.facts["left_in_float"]:
        show(f"left in float: {', '.join(left)}")
