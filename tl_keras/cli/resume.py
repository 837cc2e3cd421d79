"""The command resume: go on with a run that was stopped."""

from __future__ import annotations

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show_run
from tl_keras.cli.fit import way_on

__all__ = ["resume"]


def resume(run: opt.Run, data: opt.MovedData = None, debug: opt.Debug = False) -> None:
    """Go on with a run that was stopped, to the same weights.

    Example:  tl-keras resume runs/photos
    """
    with error_boundary(debug, lambda: way_on(run)):
        from tl_keras.workflows.fit import resume as go_on

        with bars() as progress:
            done = go_on(run, data=data, progress=progress)
        show_run(done)
