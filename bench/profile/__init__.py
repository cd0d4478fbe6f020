"""`bench profile`: where the time of an epoch goes, and how much of the device a method uses.

`clock` has the exclusive times, `meter` runs a cell with them, `cost` counts operations, `measure` puts a cell's facts
together, `choose` says which cells, `show` and `figure` print and draw.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.fields import FieldError
from bench.outcome import RESULTS, EnvironmentProblem
from bench.plan import Overrides
from bench.profile.choose import chosen, engine_of, options_of, plan_of, shortened
from bench.profile.clock import Now
from bench.profile.cost import device_peak
from bench.profile.measure import profile_cell

SCHEMA = 1
AXES = {"dataset": "digits", "noise": "symmetric@0.5", "model": "tiny-cnn"}


def profile(
    target: str,
    *,
    only: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    axes: Mapping[str, Any] | None = None,
    cell: str | None = None,
    epochs: int = 2,
    as_planned: bool = False,
    device: str | None = None,
    threads: int | None = None,
    engine: Mapping[str, Any] | None = None,
    ops: bool = False,
    trace: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    figure: bool = True,
    say: Callable[[str], None] = lambda line: None,
    now: Now | None = None,
) -> dict[str, Any]:
    """Profile the methods of a suite (a `.yaml` file), or one method; returns what `--json` prints.

    That is the setting (`device`, `threads`, `engine`, `peak`: measured operations per second) and under `methods` one
    mapping each: `seconds` and `shares` by category (`bench.profile.clock.CATEGORIES`) with a clock around every part;
    `epoch_seconds`, `train_seconds`, `eval_seconds` without; `overhead` of the clocks as a share; images, forward equivalents
    and `flops` of an epoch's training with their rates; `share_of_peak`; `memory`; `epochs`: each of them; `cost`: as in a
    record. All are means over the epochs after the first, in seconds, images, bytes, operations, and shares of 1.

    Arguments mean what the options of `bench profile` mean; `axes` are the data set, noise, model and batch_size of a single
    method, `out` is the folder of the figure, `now` the clock. Raises `SuiteError`, `FieldError` and
    `EnvironmentProblem`; a cell that fails is in the facts.
    """
    data = str(data) if data else None
    plan = plan_of(target, AXES | dict(axes or {}), Overrides(only or {}, set or {}), data)
    entries = chosen(plan, cell)
    if trace is not None and len(entries) != 1:
        hint = "choose one with --only method=... or --cell ID"
        raise FieldError("--trace", f"a trace is of one method, and these are {len(entries)}", hint)
    settings = engine_of(plan.suite.resources, engine or {})
    folder = Path(out) if out else Path(RESULTS) / plan.suite.name
    for place in [*([folder] if figure else []), *([Path(trace).resolve().parent] if trace else [])]:
        _writable(place)  # a fault here must not show after the runs
    found, peak = [], None
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as work:
        for number, entry in enumerate(entries, 1):
            options = options_of(plan, entry, settings, device=device, threads=threads, data=data, work=work)
            peak = peak or device_peak(torch.device(options.device), settings, options.threads, now)
            say(f"[{number}/{len(entries)}] {entry.label()}")
            short, changed = shortened(entry, epochs, as_planned=as_planned)
            facts = profile_cell(
                short, options, peak=peak["flops_per_second"], ops=ops, trace=Path(trace) if trace else None, now=now
            )
            names = {axis: getattr(entry, axis) for axis in ("method", "title", "dataset", "noise", "seed")}
            found.append({**names, "suite_cell": entry.id, "changed": changed, **facts})
    report: dict[str, Any] = {
        "schema": SCHEMA, "suite": plan.suite.name, "epochs": epochs, "device": options.device, "threads": options.threads,
        "engine": settings.describe(), "peak": peak, "methods": found, "notes": plan.notes, "files": [],
    }  # fmt: skip
    done = [facts for facts in found if facts["status"] == "done"]
    if figure and done:
        from bench.profile.figure import draw

        report["files"] = [str(path) for path in draw(report, folder / "profile")]
    if trace is not None and done:
        report["files"].append(str(trace))
    return report


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to the folder {folder}: {error.strerror or error}") from error
