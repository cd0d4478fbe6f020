"""One cell under the profiler: a plain run, one with all clocks, one under torch's profiler where that is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from bench.cell import cell_id
from bench.learner import Passes
from bench.profile.clock import CATEGORIES, Now, busy_clock, device_clock
from bench.profile.cost import flops, flops_per_image
from bench.profile.meter import Counts, Epoch, Meter
from bench.trial.runner import Options

TOP = 15  # operators that are listed

Facts = dict[str, Any]


def profile_cell(
    cell: dict[str, Any], options: Options, *, peak: float, ops: bool = False, trace: Path | None = None, now: Now | None = None
) -> Facts:
    """What the epochs of a cell cost; all but the first are averaged. `peak`: operations per second of the device.

    The cell runs twice, without and with clocks, and once more under torch's profiler for `ops` or `trace`. No record is
    written. A cell that fails has the facts `status` and `reason` alone.
    """
    busy = now or busy_clock(torch.device(options.device))
    now = now or device_clock(torch.device(options.device))
    plain = Meter(now, busy, fine=False).run(cell, options)
    if plain.record["status"] != "done":
        return _failed(plain)
    fine = Meter(now, busy, fine=True).run(cell, options)
    if fine.record["status"] != "done":
        return _failed(fine)
    facts: Facts = {
        "status": "done", "reason": None, "id": cell_id(cell), "samples": fine.epochs[-1].samples,
        "same_results": plain.record["metrics"] == fine.record["metrics"],
        "epochs": [_epoch(epoch) for epoch in fine.epochs],
        **_times(plain.epochs, fine.epochs), **_work(fine, plain, peak), "memory": _memory(fine),
        "cost": fine.record["cost"],
    }  # fmt: skip
    if ops or trace is not None:
        facts["operators"] = _operators(cell, options, now, trace)
    return facts


def _failed(meter: Meter) -> Facts:
    return {"status": meter.record["status"], "reason": meter.record["reason"], "id": meter.record["id"]}


def _times(plain: Sequence[Epoch], fine: Sequence[Epoch]) -> Facts:
    """Seconds of an epoch: shares come from the run with clocks, the epoch's length from the one without."""
    steady, clocked = plain[1:], mean([epoch.total for epoch in fine[1:]])
    seconds = {category: mean([epoch.seconds[category] for epoch in fine[1:]]) for category in CATEGORIES}
    length = mean([epoch.total for epoch in steady])
    return {
        "first_epoch_seconds": plain[0].total,
        "epoch_seconds": length,
        "train_seconds": mean([epoch.training for epoch in steady]),
        "eval_seconds": mean([epoch.seconds["evaluation"] for epoch in steady]),
        "clocked_epoch_seconds": clocked,
        "overhead": overhead(plain, fine),
        "seconds": seconds,
        "shares": {category: ratio(value, clocked) for category, value in seconds.items()},
    }


def overhead(plain: Sequence[Epoch], fine: Sequence[Epoch]) -> float | None:
    """How much more work an epoch is with clocks, as a share: of the shortest ones, which chance moves least."""
    fastest, clocked = (min(epoch.busy for epoch in epochs[1:]) for epochs in (plain, fine))
    return ratio(clocked - fastest, fastest)


def _work(fine: Meter, plain: Meter, peak: float) -> Facts:
    """Images and operations of an epoch's training, evaluation apart, against its length without clocks."""
    task = fine.trial.method.task
    per_image = functools.cache(lambda net: flops_per_image(net, task._images.shape))
    steady = fine.epochs[1:]
    forward, backward = (mean([total(epoch.trained, place) for epoch in steady]) for place in (0, 1))
    operations = mean([flops(epoch.trained, per_image) for epoch in steady])
    seconds, samples = mean([epoch.training for epoch in plain.epochs[1:]]), steady[-1].samples
    nets: list[Passes] = list(steady[-1].trained)
    rate = ratio(operations, seconds)
    return {
        "forward_images": forward,
        "backward_images": backward,
        "evaluation_images": mean([total(epoch.evaluated, 0) for epoch in steady]),
        "forward_equivalents": forward + 2 * backward,
        "forward_equivalents_per_image": ratio(forward + 2 * backward, samples),
        "images_per_second": ratio(backward, seconds),
        "samples_per_second": ratio(samples, seconds),
        "flops_per_image": [per_image(net) for net in nets],
        "flops": operations,
        "flops_per_second": rate,
        "share_of_peak": None if rate is None else ratio(rate, peak),
    }


def _epoch(epoch: Epoch) -> Facts:
    return {
        "epoch": epoch.number, "seconds": epoch.seconds,
        "forward_images": total(epoch.trained, 0), "backward_images": total(epoch.trained, 1),
        "evaluation_images": total(epoch.evaluated, 0),
    }  # fmt: skip


def _memory(meter: Meter) -> Facts:
    device = meter.trial.device.type
    return {"peak_bytes": meter.peak_bytes, "of": "device, allocated" if device == "cuda" else "process, resident"}


def _operators(cell: dict[str, Any], options: Options, now: Now, trace: Path | None) -> list[Facts]:
    """The operators that take most of the last epoch by themselves, from a run of its own: torch's profiler is slow."""
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.device(options.device).type == "cuda"
    watch = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])])
    last = cell["training"]["epochs"] - 1

    def around(epoch: int) -> AbstractContextManager[Any]:
        return watch if epoch == last else nullcontext()

    if Meter(now, now, fine=False, around=around).run(cell, options).record["status"] != "done":
        return []
    if trace is not None:
        watch.export_chrome_trace(str(trace))
    own: Callable[[Any], float] = lambda e: e.self_device_time_total if cuda else e.self_cpu_time_total  # noqa: E731
    events = sorted(watch.key_averages(), key=own, reverse=True)
    whole = sum(own(event) for event in events)
    return [
        {"name": event.key, "calls": event.count, "self_seconds": own(event) / 1e6, "share": ratio(own(event), whole)}
        for event in events[:TOP]
    ]


def total(counts: Counts, place: int) -> int:
    """Images over all networks: forward (`place` 0) or backward (1)."""
    return sum(pair[place] for pair in counts.values())


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def ratio(a: float, b: float) -> float | None:
    return a / b if b else None
