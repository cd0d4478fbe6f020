"""Which cells are profiled: one for each method of a suite, or one made up of a method and a few names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.api import read_plan
from bench.engine import Engine
from bench.fields import FieldError, nearest
from bench.method import method_class, methods
from bench.outcome import RESULTS, EnvironmentProblem
from bench.plan import Entry, Overrides, Plan, make_plan
from bench.stages import cache_root
from bench.suite import Resources, Suite
from bench.trial.runner import Options
from bench.yaml_source import Source

#: names of fields that say in which epoch a stage begins or how many epochs it takes
_STAGES = re.compile(r"warm|ramp|epoch|start|begin|from|until|delay")
ENGINE = ("precision", "channels_last", "compile", "deterministic", "tf32")


def is_suite(target: str) -> bool:
    return target.endswith((".yaml", ".yml"))


def plan_of(target: str, axes: Mapping[str, Any], overrides: Overrides, data: str | None) -> Plan:
    """The plan of a suite file, or of the one cell of a method (slug or file) under `axes`: dataset, noise, model, batch_size.

    Raises `FieldError` and `SuiteError`.
    """
    if is_suite(target):
        return read_plan(target, overrides, data)
    if not target.endswith(".py") and "/" not in target and target not in methods():
        from bench.describe import listing

        files = {Path(row["file"]).stem: row["file"] for row in listing("suites")}
        hint = f"the suite of that name is {files[target]}" if target in files else nearest(target, [*methods(), *files.values()])
        raise FieldError("profile", f"there is no method {target!r}, and a suite is given by its file", hint)
    cls = method_class(target)
    batch_size = axes.get("batch_size")
    suite = Suite.model_validate({
        "name": f"profile-{cls.slug.replace('+', '-')}", "methods": target,
        "datasets": axes["dataset"], "noises": axes["noise"], "model": axes["model"],
        "training": {"batch_size": batch_size} if batch_size else {},
    })  # fmt: skip
    return make_plan(suite, Source(Path("command line")), overrides, data)


def chosen(plan: Plan, cell: str | None) -> list[Entry]:
    """The first cell of each method that is not excluded, or the one whose id begins with `cell`. Raises `FieldError`."""
    if cell is not None:
        found = {entry.id: entry for entry in plan.entries if cell and entry.id.startswith(cell.lower())}
        if len(found) != 1:
            message = f"the id of {len(found) or 'no'} cell{'s' * (len(found) > 1)} of {plan.suite.name} begins with {cell!r}"
            raise FieldError("--cell", message, "`bench plan` prints the ids")
        return list(found.values())
    first: dict[str, Entry] = {}
    for entry in plan.entries:
        if entry.skip is None:
            first.setdefault(entry.method, entry)
    return list(first.values())


def shortened(entry: Entry, epochs: int, *, as_planned: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cell with so many epochs, and the fields that were changed so that all stages begin in the second epoch.

    These are the fields about epochs among those with which a method says it can be tried out (`smoke`), where they would
    put a stage off for longer; `as_planned` leaves them alone.
    """
    method = entry.cell["method"]
    cls = method_class(entry.method_path or method["name"])
    earlier = {} if as_planned else {n: v for n, v in cls.smoke.items() if _puts_off(n, method["params"].get(n), v)}
    params = cls.identity({**method["params"], **earlier})
    training = {**entry.cell["training"], "epochs": epochs}
    return {**entry.cell, "method": {**method, "params": params}, "training": training}, earlier


def _puts_off(name: str, value: Any, smoke: Any) -> bool:
    numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in (value, smoke))
    return bool(_STAGES.search(name)) and numbers and value > smoke


def engine_of(resources: Resources, changes: Mapping[str, Any]) -> Engine:
    """The suite's engine with what the command line changes about it. Raises `FieldError`."""
    for name in changes:
        if name not in ENGINE:
            raise FieldError("--engine", f"unknown setting {name!r}", nearest(name, ENGINE))
    settings = {name: getattr(resources, name) for name in ENGINE} | dict(changes)
    switches = [name for name in ("channels_last", "deterministic", "tf32") if not isinstance(settings[name], bool)]
    if switches:
        raise FieldError("--engine", f"{switches[0]} is true or false, not {settings[switches[0]]!r}")
    if settings["compile"] is False:  # YAML reads `off` so
        settings["compile"] = "off"
    try:
        return Engine(**settings)
    except ValueError as error:
        raise FieldError("--engine", str(error)) from None


def options_of(
    plan: Plan, entry: Entry, engine: Engine, *, device: str | None, threads: int | None, data: str | None, work: str
) -> Options:
    """How `entry` runs here, in this process; `work` holds label noise for the time of the profile. Stages that runs share
    are taken from the cache of the results folder.

    Raises `EnvironmentProblem` where the device is missing.
    """
    resources = plan.suite.resources
    device = device or ("cuda" if resources.gpu > 0 else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("torch sees no GPU here; profile on the CPU with --device cpu")
    return Options(
        suite=plan.suite.name, method_path=entry.method_path, data_root=str(Path(data).resolve()) if data else None,
        work_folder=work, device=device, engine=engine, checkpoint_seconds=float("inf"),
        threads=threads or max(1, int(resources.cpu)), noise_files=tuple(sorted(entry.noise_files.items())),
        cache=str(cache_root(RESULTS).resolve()),
    )  # fmt: skip
