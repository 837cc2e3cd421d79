"""`tl-export compress RUN --method METHOD`: a smaller model by a short fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli.console import bars, show, table, told
from tl_keras.utils.interrupt import stoppable

if TYPE_CHECKING:
    from export.compress.run import Made

__all__ = ["HELP", "SHORT_HELP", "compress"]

SHORT_HELP = "Prune, cluster or quantize a run's model, with a short fine-tune."
HELP = """Prune, cluster or quantize a run's model, with a short fine-tune on the run's pictures.

Methods: qat, prune, prune_2_4, cluster, prune+qat, cluster+qat. With qat the file takes uint8
pictures and computes in int8; the others also give a plain .keras file. Each file is compared
with the run's model on all validation pictures.

Example:  tl-export compress runs/photos --method prune+qat --out small/
"""


def compress(  # noqa: PLR0913 - a command's options are its arguments
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A directory that tl-keras fit has written.")
    ],
    method: Annotated[str, typer.Option(help="How; see above.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each step.")] = 2,
    rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 32,
    sparsity: Annotated[float, typer.Option(help="Share of zeros that prune leaves.")] = 0.5,
    clusters: Annotated[int, typer.Option(help="Different weights a layer, for cluster.")] = 32,
    augment: Annotated[
        str, typer.Option(help="none, or flip, crop, color, affine, randaugment, with +.")
    ] = "none",
    data: Annotated[
        str | None, typer.Option(help="Where the run's pictures are now, if they moved.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides orders and views.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    with told(debug, lambda: "Nothing was written."), stoppable() as stopping:
        from export.compress.fine_tune import FineTune
        from export.compress.run import Wanted, compress_run

        with bars() as drawn:
            progress = stopping(drawn)
            how = FineTune(epochs, rate, batch_size, seed, augment, progress)
            wanted = Wanted(method, how, sparsity, clusters)
            made = compress_run(run, wanted, out, data=data, progress=progress)
        _show(made, out)


def _show(made: list[Made], out: Path) -> None:
    columns = ("file", "size", "zipped", "of fp32", "accuracy", "drop", "labels equal")
    closing = table(f"written to {out}", *columns)
    for one in made:
        proof = one.verdict
        closing.add_row(
            one.file,
            f"{one.bytes / 1e6:.2f} MB",
            f"{one.zipped / 1e6:.2f} MB",
            f"{one.of_fp32:.2f}",
            "" if proof.accuracy is None else f"{100 * proof.accuracy:.2f} %",
            f"{100 * proof.drop:+.2f}",
            f"{round(proof.agreement * proof.pictures)} of {proof.pictures}",
        )
    show(closing)
    if made[0].left_in_float:
        show(f"left in float: {', '.join(made[0].left_in_float)}")
