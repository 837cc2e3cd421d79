"""`tl-keras`: the commands."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tl_keras.cli.console import HelpFirst, bars, numbers, score_table, show, table, told
from tl_keras.cli.registered import register
from tl_keras.training.plan import PLAN_NAMES

__all__ = ["app", "main"]

app = typer.Typer(
    cls=HelpFirst,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich's own help takes longer to import than all the rest.
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
    no_args_is_help=True,
    help="From a folder of labelled photos to a trained model.\n\n"
    "Example:  tl-keras fit photos/ --base mobilenet_v2 --out runs/photos",
)

DATA_HELP = "A folder of class folders, a CSV file (path,label[,split]), or a built-in name."
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A directory that fit has written.")]
Base = Annotated[str, typer.Option(help="A base's name (see: tl-keras bases) or a .keras file.")]
Size = Annotated[int | None, typer.Option(help="Side in pixels.", show_default="the base's own")]
Weights = Annotated[
    str, typer.Option(help="imagenet, none, a file, or default: what the base comes with.")
]
Task = Annotated[str, typer.Option(help="classes, tags (several a picture) or values (numbers).")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be used.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, another split and start.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.command(
    short_help="Train a model on labelled pictures.",
    help="Train a model on labelled pictures, through the stages of a plan.\n\n"
    "Example:  tl-keras fit photos/ --base mobilenet_v2 --out runs/photos",
)
def fit(  # noqa: PLR0913 - a command's options are its arguments
    data: Data,
    out: Annotated[Path, typer.Option(help="Where to write the run; must not exist.")],
    base: Base = "mobilenet_v2",
    size: Size = None,
    weights: Weights = "default",
    plan: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(PLAN_NAMES)}, or auto: chosen by short runs.",
            show_default="lp-ft; scratch with --weights none",
        ),
    ] = "",
    minutes: Annotated[float, typer.Option(help="That plan auto may take to choose.")] = 10.0,
    adapt: Annotated[str, typer.Option(help="Layers of plan lora or adapters: patterns.")] = "",
    rank: Annotated[int, typer.Option(min=1, help="Of plan lora.")] = 4,
    epochs: Annotated[
        str, typer.Option(help="Epochs of each stage, with commas.", show_default="the plan's")
    ] = "",
    rate: Annotated[float, typer.Option(help="Factor on the plan's learning rates.")] = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 32,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, or flip, crop, color, affine, randaugment, with +.",
            show_default="flip+crop for photos",
        ),
    ] = None,
    views: Annotated[
        int, typer.Option(min=1, help="Views of each picture that frozen stages see.")
    ] = 4,
    pooling: Annotated[str, typer.Option(help="avg, max, avg+max, gem or flatten.")] = "avg",
    dense: Annotated[str, typer.Option(help="Units of dense layers, with commas.")] = "",
    dropout: Annotated[float, typer.Option(help="Dropout in the head, 0 to 1.")] = 0.0,
    task: Task = "classes",
    val: Annotated[float, typer.Option(help="Share for validation if the data has none.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share for the test if the data has none.")] = 0.0,
    seed: Seed = 0,
    precision: Annotated[
        str, typer.Option(help="auto, or float32, bfloat16, onnxruntime for frozen layers.")
    ] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs to train on.")] = 1,
    skip_bad: SkipBad = False,
    debug: Debug = False,
) -> None:
    """Run `fit`; its help says what it does."""
    given = {"batch_size": batch_size, "views": views, "augment": augment}
    settings = {name: value for name, value in given.items() if value}
    with told(debug, lambda: _way_on(out)):
        from tl_keras.workflows.fit import Job, train

        job = Job(
            data, base, size, weights, pooling, numbers(dense, "--dense"), dropout,
            plan, settings, numbers(epochs, "--epochs"), rate, task, val, test, seed,
            precision, devices, skip_bad, adapt=adapt, rank=rank, minutes=minutes,
        )  # fmt: skip
        with bars() as progress:
            run = train(job, out, progress=progress, command=_command())
        _show_run(run)


@app.command(help="Go on with a run that was stopped.\n\nExample:  tl-keras resume runs/photos")
def resume(
    run: Run,
    data: Annotated[
        str | None, typer.Option(help="Where the run's pictures are now, if they moved.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Run `resume`; its help says what it does."""
    with told(debug, lambda: _way_on(run)):
        from tl_keras.workflows.fit import resume as go_on

        with bars() as progress:
            done = go_on(run, data=data, progress=progress)
        _show_run(done)


@app.command(
    help="Score a run's model on its test split or on other pictures.\n\n"
    "Example:  tl-keras evaluate runs/photos --data new_photos/"
)
def evaluate(
    run: Run,
    data: Annotated[str | None, typer.Option(help=f"Other pictures. {DATA_HELP}")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file.")] = None,
    debug: Debug = False,
) -> None:
    """Run `evaluate`; its help says what it does."""
    with told(debug):
        from tl_keras.workflows.evaluate import evaluate_run

        with bars() as progress:
            scores = evaluate_run(run, data, split, progress)
        if out:
            from tl_keras.utils.files import write_atomically

            write_atomically(out, (json.dumps(scores, indent=1) + "\n").encode())
        show(score_table(f"{run} on {data or split}", {"score": scores}))


@app.command(
    help="Say what is on pictures.\n\nExample:  tl-keras predict runs/photos new/*.jpg --top 3"
)
def predict(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each picture.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Run `predict`; its help says what it does."""
    with told(debug):
        from tl_keras.workflows.evaluate import predict_files

        with bars() as progress:
            rows = predict_files(run, pictures, top, progress)
        if as_json:
            print(json.dumps(rows, ensure_ascii=False, indent=1))
            return
        made = table("", "picture", "outputs")
        for row in rows:
            said = ", ".join(f"{one['name']} {one['value']:.3f}" for one in row["outputs"])
            made.add_row(str(row["path"]), said)
        made.columns[1].justify = "left"
        show(made)


@app.command(help="List the bases.\n\nExample:  tl-keras bases mobilenet")
def bases(
    words: Annotated[str, typer.Argument(help="Part of a name.")] = "", debug: Debug = False
) -> None:
    """Run `bases`; its help says what it does."""
    with told(debug):
        from tl_keras.models.backbones.load import base_names, describe

        names = [name for name in base_names() if words.lower() in name]
        # An unknown word gets the nearest names.
        infos = map(describe, names or [words])
        made = table("", "base", "size", "at least", "weights", "published")
        for info in infos:
            cells = (info.default_size, info.minimum_size, info.default_weights, info.publication)
            made.add_row(info.name, *map(str, cells))
        made.columns[4].justify = "left"
        show(made)


@app.command(
    name="check-data",
    short_help="Look at every picture before training.",
    help="Look at every picture before training: what cannot be used, and copies.\n\n"
    "Example:  tl-keras check-data photos/",
)
def check_data(data: Data, task: Task = "classes", seed: Seed = 0, debug: Debug = False) -> None:
    """Run `check-data`; its help says what it does."""
    with told(debug):
        from tl_keras.runs.prepare import Job, check_options, checked_data

        job = Job(data, task=task, seed=seed)
        check_options(job)
        with bars() as progress:
            checked = checked_data(job, progress)
        _show_data(data, checked)


@app.command(
    name="lr-find",
    short_help="Find a learning rate.",
    help="Find a learning rate: train a few steps at rising rates and watch the loss.\n\n"
    "Example:  tl-keras lr-find photos/ --base mobilenet_v2 --out rates.png",
)
def lr_find(  # noqa: PLR0913 - a command's options are its arguments
    data: Data,
    base: Base = "mobilenet_v2",
    size: Size = None,
    weights: Weights = "default",
    train: Annotated[str, typer.Option(help="What learns: selectors with commas.")] = "head",
    steps: Annotated[int, typer.Option(min=10, help="Steps at most.")] = 100,
    out: Annotated[Path, typer.Option(help="Where to draw.")] = Path("lr_find.png"),
    seed: Seed = 0,
    skip_bad: SkipBad = False,
    debug: Debug = False,
) -> None:
    """Run `lr-find`; its help says what it does."""
    with told(debug):
        from tl_keras.runs.prepare import Job
        from tl_keras.workflows.evaluate import find_rate

        job = Job(data, base, size, weights, seed=seed, skip_bad=skip_bad)
        with bars() as progress:
            found = find_rate(job, tuple(train.split(",")), steps, out, progress)
        show(f"suggested peak rate {found.suggestion:.1e}; the curve is in {out}")


register(app)


def _way_on(run: Path) -> str:
    if (run / "run.json").exists():
        return f"Go on with: tl-keras resume {shlex.quote(str(run))}"
    return "Nothing was written yet."


def _command() -> str:
    return shlex.join(["tl-keras", *sys.argv[1:]])


def _show_data(data: str, checked: Any) -> None:
    parts = [checked.splits.train, checked.splits.val, checked.splits.test]
    made = table(f"{data}: all pictures can be used", "class", "train", "val", "test")
    counts = [part.counts() if part else {} for part in parts]
    for name in counts[0]:
        made.add_row(name, *(str(count.get(name, 0)) for count in counts))
    made.add_row("pictures", *(str(len(part) if part else 0) for part in parts))
    show(made, f"fingerprint {checked.fingerprint}")
    for keys in checked.duplicates[:20]:
        show(f"the same picture: {', '.join(keys)}")
    if len(checked.duplicates) > 20:
        show(f"... and {len(checked.duplicates) - 20} more that are there more than once")


_KEPT = {1: " (kept)", 2: " (averaged)"}


def _show_run(run: Any) -> None:
    stages = table("stages", "stage", "epochs", "val accuracy", "seconds", "frozen up to")
    kept = str(run.record.get("best_stage")).split(" + ")
    for row in run.record["stages"]:
        accuracy = row.get("best_val_accuracy")
        stages.add_row(
            row["name"] + (_KEPT[min(len(kept), 2)] if row["name"] in kept else ""),
            str(row["epochs_run"]),
            "" if accuracy is None else f"{accuracy:.3f}",
            f"{row['seconds']:.1f}",
            row["cut"] or "nothing",
        )
    show(stages, score_table("scores", run.record["metrics"]))
    if run.record["job"]["weights"] == "none" and run.record["plan"]["name"] == "scratch":
        show("plan scratch: a base without weights has nothing to keep frozen")
    if reason := run.record.get("precision", {}).get("reason"):
        show(f"frozen layers: {reason}")
    show(f"report: {run.path / 'report.html'}")


def main() -> None:
    """Start the command line."""
    app()
