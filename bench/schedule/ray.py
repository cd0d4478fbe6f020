"""Ray Tune as executor: a function trainable, one trial per job, worker processes reused between trials.

Ray decides where and when a job runs. The trial writes its record itself where it sees the results folder, and hands it
back as well, so that the driver can write it where there is no shared file system. Tune's own results are thrown away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench
from bench.schedule import Listener
from bench.schedule.bridge import ATTEMPTS, Bridge
from bench.schedule.job import Adopted, Job, ResourceError, SaveError, Stopped, run_job
from bench.schedule.limits import watchdog

REPORT_SECONDS = 2.0  # a report costs a round trip to the driver, so cells that are shorter send none

#: read by Ray when it is imported or started; a value that the user has set is left alone
ENVIRONMENT = {
    "RAY_memory_monitor_refresh_ms": "0",  # one memory kill would abort the whole run; the kernel kills one worker
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # drops the paragraph that is printed for each dead worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning; the device comes from the job
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C looks like success
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's experiment state is never read
    "TUNE_WARN_THRESHOLD_S": "10",
}


# -- worker side ---------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1)
def _fetch(jobs_ref: Any) -> Sequence[Job]:
    import ray

    return ray.get(jobs_ref[0])


def _trial(jobs_ref: Any, number: int, marker: str) -> None:
    """Run one job in a worker process and report its record; never raises for a fault of the cell."""
    from ray import tune

    job = _fetch(jobs_ref)[number]
    if marker and not Path(job.folder, marker).exists():
        job = _on_this_machine(job)
    last = time.monotonic()

    def on_epoch(epoch: int, values: dict[str, float | None]) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            try:
                tune.report({"epoch": epoch, "values": values})
            except SystemExit:  # how Tune ends a trial that it stops
                raise Stopped from None
            except Exception as error:  # progress is no reason for a cell to fail
                warnings.warn(f"progress of cell {job.id} could not be reported: {error}", stacklevel=1)

    result: dict[str, Any] = {"done": True}
    try:
        record = run_job(job, on_epoch, guard=watchdog)
        result |= {"record": dict(record), "adopted": isinstance(record, Adopted)}
    except SaveError as error:
        result |= {"record": error.record, "unsaved": str(error)}
    except Stopped:
        return
    tune.report(result)


def _on_this_machine(job: Job) -> Job:
    """The job with folders of this machine, for a worker that does not see the driver's; Ray takes the record back."""
    scratch = Path(tempfile.gettempdir()) / f"bench-{os.getuid()}" / job.options.suite
    options = dataclasses.replace(job.options, work_folder=str(scratch / "work") if job.options.work_folder else None)
    if options.cache and not Path(options.cache).is_dir():  # a cache that both machines see is shared
        options = dataclasses.replace(options, cache=str(scratch / "cache"))
    if options.checkpoint_dir and "://" not in options.checkpoint_dir and not Path(options.checkpoint_dir).is_dir():
        options = dataclasses.replace(options, checkpoint_dir=None)  # a folder of the driver's machine
    return dataclasses.replace(job, folder=str(scratch), options=options, replace=True)


# -- driver side ---------------------------------------------------------------------------------------------------
def run_jobs(
    jobs: Sequence[Job],
    listener: Listener,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """See `bench.schedule.run_jobs`."""
    with connected(address):
        check_resources(jobs)
        with _marked(jobs if address else ()) as marker:
            bridge = Bridge(jobs, listener, stop)
            for _ in range(ATTEMPTS):
                if bridge.open and not bridge.stopping:
                    _fit(bridge, marker, max_concurrent)
            bridge.finish()


def _fit(bridge: Bridge, marker: str, max_concurrent: int | None) -> None:
    """One Tune experiment over the open jobs, under a fresh name in a scratch folder that is removed again."""
    import ray
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig

    jobs_ref = (ray.put(list(bridge.jobs)),)
    requests = [_request(job) for job in bridge.jobs]

    def trainable(config: dict[str, Any]) -> None:
        _trial(jobs_ref, config["job"], marker)

    def resources(config: dict[str, Any]) -> Any:
        return tune.PlacementGroupFactory([requests[config["job"]]])

    running: dict[str, Any] = {}  # trials by id

    class Callback(tune.Callback):
        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if bridge.stopping:
                _kill(running)

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            running[trial.trial_id] = trial
            with bridge.keep_error():
                bridge.started(trial.config["job"])

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            with bridge.keep_error():
                bridge.reported(trial.config["job"], result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            running.pop(trial.trial_id, None)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            running.pop(trial.trial_id, None)
            error = _error_of(trial)
            with bridge.keep_error():
                bridge.failed(trial.config["job"], error, died=not isinstance(error, ray.exceptions.RayTaskError))

    class StopWhenAsked(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return bridge.stopping

    scratch = Path(bridge.jobs[0].options.work_folder or tempfile.gettempdir()).absolute() / "ray"
    name = f"bench-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={"job": tune.grid_search(list(bridge.open))},
        tune_config=TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=max_concurrent,
            trial_name_creator=lambda trial: bridge.jobs[trial.config["job"]].id,
            trial_dirname_creator=lambda trial: str(trial.config["job"]),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(scratch),
            verbose=0,
            failure_config=FailureConfig(max_failures=0),  # would repeat deterministic errors too
            callbacks=[Callback()],
            stop=StopWhenAsked(),
        ),
    )
    try:
        tuner.fit()
    except BaseException:  # Ctrl-C
        _kill(running)
        raise
    finally:
        shutil.rmtree(scratch / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            scratch.rmdir()


def _error_of(trial: Any) -> BaseException | None:
    """Why a trial failed, from the file beside the driver; `Trial.get_pickled_error` looks where it is copied later."""
    try:
        return pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # whatever a foreign exception does when it is unpickled
        return None


def _kill(running: dict[str, Any]) -> None:
    """End running trials now; Tune would wait for their next report."""
    import ray

    for trial in running.values():
        with contextlib.suppress(Exception):
            ray.kill(trial.temporary_state.ray_actor)
    running.clear()


# -- cluster -------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Ray with our settings: a fresh local cluster, or the one at `address`; left as it is where Ray runs already."""
    _set_environment(local=address is None)
    import ray

    for logger in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    session = _start(address)
    try:
        yield
    finally:
        ray.shutdown()
        if session is not None:  # else /tmp/ray would keep every session for ever
            shutil.rmtree(session, ignore_errors=True)


def _set_environment(*, local: bool) -> None:
    """To be called before Ray is imported, which is when it reads this."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    unset = not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if local and unset and "ray" not in sys.modules:
        # A token of our own: Ray would write one into the home directory, and fail where it cannot.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def _start(address: str | None) -> Path | None:
    """Start or join a cluster; returns the session folder of one that we started."""
    import ray

    root = str(Path(bench.__file__).resolve().parent.parent)
    paths = [root, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root)]
    workers = {"PYTHONPATH": os.pathsep.join(paths), "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": False}
    if address is not None:
        ray.init(address, runtime_env={"env_vars": workers}, **quiet)
        return None
    saved = os.environ.get("PYTHONPATH")
    os.environ.update(workers)  # inherited, which is faster than a runtime environment
    try:
        context: Any = ray.init("local", include_dashboard=False, **quiet)
    finally:
        if saved is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = saved
    return Path(context.address_info["session_dir"])


def _request(job: Job) -> dict[str, float]:
    return {"CPU": float(job.cpus), "GPU": float(job.gpus)} if job.gpus else {"CPU": float(job.cpus)}


def check_resources(jobs: Sequence[Job]) -> None:
    """Raise `ResourceError` for a request that no machine of the cluster can ever meet; Ray would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for job in jobs:
        request = _request(job)
        if not any(all(node.get(kind, 0.0) >= amount for kind, amount in request.items()) for node in nodes):
            largest = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
            asked = " and ".join(f"{amount:g} {kind}" for kind, amount in request.items())
            raise ResourceError(
                f"{job.label} asks for {asked}, but the largest machine of the cluster has {largest['CPU']:g} CPU and "
                f"{largest['GPU']:g} GPU. Lower resources.cpu or resources.gpu in the suite, or give the address of a "
                "larger cluster."
            )


@contextlib.contextmanager
def _marked(jobs: Sequence[Job]) -> Iterator[str]:
    """Mark the results folders, so that a worker on another machine can tell whether it sees the same ones."""
    if not jobs:
        yield ""
        return
    marker = f".bench-{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
    paths = [Path(folder, marker) for folder in {job.folder for job in jobs}]
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise SaveError.of(path, error) from error
    try:
        yield marker
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


# -- searching -----------------------------------------------------------------------------------------------------
def optuna_search(
    domains: Mapping[str, tuple[str, Sequence[Any]]], seed: int, history: Sequence[tuple[dict[str, Any], float]]
) -> Any:
    """Ray Tune's `OptunaSearch` over `domains` (name -> kind and its values), told `history`; `suggest(id)` proposes.

    Choices are given and proposed by position. Raises `ImportError` where Ray or Optuna is not installed.
    """
    _set_environment(local=True)
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    makers: dict[str, Callable[..., Any]] = {
        "choice": lambda *values: tune.choice(list(range(len(values)))),
        "int": lambda low, high: tune.randint(low, high + 1),
        "uniform": tune.uniform,
        "loguniform": tune.loguniform,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OptunaSearch(
            OptunaSearch.convert_search_space({name: makers[kind](*values) for name, (kind, values) in domains.items()}),
            metric="value", mode="max",
            # a batch is proposed without the results of its own members: the liar keeps them apart
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1, multivariate=True, constant_liar=True),
            points_to_evaluate=[setting for setting, _ in history],
            evaluated_rewards=[value for _, value in history],
        )  # fmt: skip
