"""Checks of what a run yields: a record, the same bits again, probabilities, a state that can be saved, a cost."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bench.data
from bench.check.miniature import CLASSES, EPOCHS, make_cell, registered
from bench.check.subject import Failure, Outcome, Subject, call, difference
from bench.check.worker import WorkerDied, the_worker
from bench.records import load_record, write_record

TOLERANCE = 1e-4


def trains(subject: Subject) -> str:
    """A plain run is done and its record can be written and read."""
    record = subject.base.record
    with tempfile.TemporaryDirectory() as folder:
        load_record(write_record(Path(folder), record))
    return f"{EPOCHS} epochs, last test accuracy {record['metrics']['test_acc_last']:.2f}"


def deterministic(subject: Subject) -> str:
    """The same cell gives the same bits again."""
    _same(
        subject.base, subject.run().require_done("a second run"), "a second run of the same cell gives other bits",
        "draw random numbers from task.generator(), keep no state on the class or in the module, and use no clock",
    )  # fmt: skip
    return "metrics, curve, passes and final state are the same bits"


def seeds(subject: Subject) -> str:
    """On clean data without a validation split, where seeds differ in nothing but random streams, results differ."""
    a, b = (
        subject.run(epochs=2, noise="none", val_fraction=0, seed=seed).require_done(f"seed {seed}") for seed in (0, 1)
    )
    if difference(a.trial.curve.as_dict(), b.trial.curve.as_dict()) is None and difference(a.state, b.state) is None:
        raise Failure(
            "two seeds give the same result, so its spread over seeds would be a fiction; create networks with "
            "task.learner(), iterate with task.batches(), and seed no generator with a constant"
        )
    return "two seeds on the same data give different results"


def resume(subject: Subject) -> str:
    """Interrupted in every epoch and resumed from the file each time, it ends in the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        resumed = interrupted(subject, folder, range(1, EPOCHS), {}, EPOCHS)
    _same(subject.base, resumed, "resumed runs end elsewhere than an uninterrupted one", _UNSAVED)
    return f"interrupted and resumed at each of {EPOCHS - 1} epoch ends: the same bits"


_UNSAVED = (
    "all that a later epoch depends on must be an attribute without a leading underscore, and every random number must "
    "come from task.generator(), whose streams are fresh in every epoch"
)


def interrupted(subject: Subject, folder: str, stops: Any, params: dict[str, Any], epochs: int) -> Outcome:
    """Let the run be interrupted in each epoch of `stops`, trained but not saved, and then finish."""
    begin = 0
    for stop in [*stops, None]:
        outcome = subject.run(params=params, epochs=epochs, work=folder, stop=stop)
        if not outcome.interrupted:
            outcome.require_done("a run with checkpoints")
        if outcome.epochs[:1] != [begin]:
            why = "; ".join(outcome.record["warnings"]) or f"it runs epochs {outcome.epochs}"
            raise Failure(f"a run that should begin with epoch {begin} does not: {why}")
        begin = stop
    return outcome


def options(subject: Subject) -> str:
    """Every other value of every yes/no or multiple-choice field trains, and resumes in the same bits."""
    for params, plain in subject.variant_runs:
        what = ", ".join(f"{name}={value}" for name, value in params.items())
        plain.require_done(what)
        with tempfile.TemporaryDirectory() as folder:
            resumed = interrupted(subject, folder, [EPOCHS - 2], params, EPOCHS - 1)
        _same(plain, resumed, f"{what}: a resumed run ends elsewhere than an uninterrupted one", _UNSAVED)
    tried = "; ".join(f"{name}={value}" for params in subject.variants for name, value in params.items())
    return f"trained and resumed with {tried}" if tried else "not applicable: no yes/no or multiple-choice field"


def _same(a: Outcome, b: Outcome, message: str, advice: str) -> None:
    found = difference(a.results(), b.results())
    if found:
        raise Failure(f"{message}: {found} differs; {advice}")


def worker(subject: Subject) -> str:
    """The pickled job, run by a fresh process with another hash seed, gives the same metrics and curve."""
    with registered():
        job = subject.job(make_cell(subject.cls, subject.smoke))
    here = {key: subject.base.record[key] for key in ("metrics", "curve")}
    try:
        there = the_worker().run(job)
    except WorkerDied as error:
        raise Failure(f"the worker process died running it ({error}); this process did not") from error
    if there["status"] != "done":
        raise Failure(f"in a worker process: {there['status']}: {there['reason']}")
    found = difference(here, {key: there[key] for key in here})
    if found:
        raise Failure(
            f"a worker process gets another result: {found} differs; depend on nothing of the process, such as "
            "state of the class or module, hash() of text, the order of a set, a process id, or the environment"
        )
    return f"{len(pickle.dumps(job))} bytes of job, same metrics and curve in a fresh process"


def predictions(subject: Subject) -> str:
    """`predict` gives probabilities, the same for an image in any company, and changes nothing."""
    method, images = subject.base.method, test_images(subject)
    before, untouched = _without_counters(_state(method)), images.clone()
    given = _probabilities(subject, images)
    if not torch.equal(images, untouched):
        raise Failure("predict writes into the images that it is given, which are shown again; work on a copy")
    order = torch.arange(len(images) - 1, -1, -1)
    parts = torch.cat([_probabilities(subject, images[index]) for index in (order[:1], order[1:8], order[8:])])
    moved = difference(before, _without_counters(_state(method)), "state")
    if moved:
        raise Failure(f"predict changes the method: {moved}; use learner.infer, which works in evaluation mode")
    gap = float((given[order] - parts).abs().max())
    if gap > TOLERANCE:
        raise Failure(
            f"the prediction of an image depends on the images that come with it (differences up to {gap:.1g}); "
            "use learner.infer, and compute nothing across the batch"
        )
    return f"probabilities [{len(images)}, {CLASSES}], rows sum to one, differences between batchings at most {gap:.0e}"


def _probabilities(subject: Subject, images: Tensor) -> Tensor:
    given = call(subject, "predict", lambda: subject.base.method.predict(images))
    shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
    if shape != (len(images), CLASSES):
        raise Failure(
            f"predict must return class probabilities of shape ({len(images)}, {CLASSES}); it returns {shape}"
        )
    if not bool(torch.isfinite(given).all()):
        raise Failure("predict returns values that are not finite")
    if bool((given < 0).any()) or float((given.sum(dim=1) - 1).abs().max()) > TOLERANCE:
        raise Failure(
            "the rows of predict are no probabilities; apply softmax(dim=1), and divide ensembles by their size"
        )
    return given.detach().float()


def _without_counters(state: Any) -> Any:
    """A copy of a state without the passes that learners count: predicting is counted, and may be."""
    if isinstance(state, dict):
        return {k: _without_counters(v) for k, v in state.items() if k not in ("forward_images", "backward_images")}
    return [_without_counters(item) for item in state] if isinstance(state, (list, tuple)) else copy.deepcopy(state)


def _state(method: Any) -> dict[str, Any]:
    try:
        return method.state_dict()
    except TypeError as error:
        raise Failure(str(error)) from error


def test_images(subject: Subject) -> Tensor:
    with registered():
        loaded = bench.data.load(subject.base.record["cell"]["dataset"])
    return subject.base.method.task.normalise(torch.as_tensor(loaded.test.images))


def clean_scores(subject: Subject) -> str:
    """`clean_scores` gives one finite number per training sample, or None."""
    method = subject.base.method
    scores = call(subject, "clean_scores", method.clean_scores)
    count = method.task.num_samples
    if scores is None:
        return "not applicable: the method scores no samples, so tables show no noise identification for it"
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if shape != (count,):
        raise Failure(f"clean_scores must return one score per training sample, shape ({count},); it returns {shape}")
    bad = int((~torch.isfinite(scores)).sum())
    if bad:
        raise Failure(f"{bad} of {count} clean scores are not finite after training; return None until all are known")
    auc = subject.base.record["metrics"].get("noise_auc_last")
    return f"[{count}] finite; AUC here {auc:.2f}" if auc is not None else f"[{count}] finite"


def checkpoint(subject: Subject) -> str:
    """Every attribute can be saved, and read back with weights only."""
    method = subject.base.method
    state = _state(method)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        again = torch.load(buffer, weights_only=True)
    except pickle.UnpicklingError as error:
        raise Failure(f"its state holds objects that a checkpoint may not: {str(error).splitlines()[0]}") from error
    found = difference(state, again, "state")
    if found:
        raise Failure(
            f"{found} comes back from a checkpoint as something else; keep tensors, numbers, lists, dictionaries"
        )
    scratch = [name for name in vars(method) if name.startswith("_")]
    note = f"; not saved, so rebuilt by setup or in every epoch: {', '.join(scratch)}" if scratch else ""
    return f"{buffer.tell() / 1024:.0f} KiB: {', '.join(state)}{note}"


def cost(subject: Subject) -> str:
    """The networks are learners, as many as declared, and their passes are counted."""
    counted, declared = subject.base.record["cost"], subject.cls.networks
    if counted["networks"] != declared:
        raise Failure(
            f"it declares networks = {declared} and has {counted['networks']} learners as attributes; create every "
            "network with task.learner() in setup, keep it in an attribute, and set `networks` to their number"
        )
    if counted["forward_images"] <= 0 or counted["backward_images"] <= 0:
        raise Failure("no pass was counted; train through learner(images) and learner.step(loss)")
    seen = EPOCHS * subject.base.method.task.num_samples
    forward, backward = counted["forward_images"] / seen, counted["backward_images"] / seen
    networks = f"{declared} network{'s' if declared > 1 else ''}"
    return f"{networks}; per image and epoch {forward:.1f} forward (evaluation included), {backward:.1f} backward"
