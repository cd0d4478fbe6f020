"""Ray Tune as executor: a function trainable, one trial per job, worker processes reused between trials.

Ray decides where and when a job runs. The trial writes its record itself where it sees the results folder, and hands it
back as well, so that the driver can write it where there is no shared file system. Tune's own results are thrown away.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import shutil
import socket
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench
from bench.interrupts import finishing, handler_kept
from bench.records import first_line
from bench.safe_text import without_credentials
from bench.schedule import Listener
from bench.schedule.bridge import ATTEMPTS, Bridge
from bench.schedule.job import Adopted, Job, NoRecord, ResourceError, SaveError, Stopped, run_job
from bench.schedule.limits import watchdog
from bench.schedule.ray_environment import SESSION, remove_of_the_dead, set_environment
from bench.schedule.relocate import on_this_machine, with_data_here
from bench.schedule.resources import check, request

RESTARTS = 3  # of a local Ray whose own processes died
_sessions: list[str] = []
REPORT_SECONDS = 2.0  # a report costs a round trip to the driver, so cells that are shorter send none
CHECK_SECONDS = 10.0  # while nothing runs: how often the cluster is asked whether it can still run what is open


# -- worker side ---------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1)
def _fetch(jobs_ref: Any) -> Sequence[Job]:
    import ray

    return ray.get(jobs_ref[0])


def _trial(jobs_ref: Any, number: int, marker: str) -> None:
    """Run one job in a worker process and report its record; never raises for a fault of the cell.

    Except where the process has lost its GPU: an actor whose function raises is not used again.
    """
    from ray import tune

    from bench.trial.runner import DeviceLost

    job = _fetch(jobs_ref)[number]
    if marker:
        job = with_data_here(job)
        if not Path(job.folder, marker).exists():
            job = on_this_machine(job)
    last = time.monotonic()

    def report(progress: dict[str, Any]) -> None:
        try:
            tune.report(progress)
        except SystemExit:  # how Tune ends a trial that it stops
            raise Stopped from None
        except Exception as error:  # progress is no reason for a cell to fail
            warnings.warn(f"progress of cell {job.id} could not be reported: {error}", stacklevel=1)

    def on_epoch(epoch: int, values: dict[str, float | None]) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            report({"epoch": epoch, "values": values})

    result: dict[str, Any] = {"done": True}
    try:
        record = run_job(job, on_epoch, guard=watchdog, say=lambda message: report({"said": message}))
        if isinstance(record, DeviceLost):
            tune.report({"record": dict(record)})
            raise RuntimeError(record["reason"])
        result |= {"record": dict(record), "adopted": isinstance(record, Adopted)}
    except NoRecord as error:
        result |= {"record": error.record, "unsaved": str(error)}
    except Stopped:
        return
    tune.report(result)


# -- driver side ---------------------------------------------------------------------------------------------------
def run_jobs(
    jobs: Sequence[Job],
    listener: Listener,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """See `bench.schedule.run_jobs`. A local Ray whose own processes died is started again; that is no fault of a cell."""
    bridge = Bridge(jobs, listener, stop)
    for _ in range(1 + RESTARTS):
        bridge.cluster_lost = False
        with connected(address):
            check(jobs, _nodes())
            with _marked(jobs if address else ()) as marker:
                attempt = 0
                while bridge.open and not bridge.stopping and attempt < ATTEMPTS + len(bridge.lost_machines):
                    _fit(bridge, marker, max_concurrent)
                    attempt += 1
        if not bridge.cluster_lost:
            bridge.finish()
            return
    raise ResourceError(f"Ray's own processes died {1 + RESTARTS} times; finished cells are safe, run the suite again")


def _fit(bridge: Bridge, marker: str, max_concurrent: int | None) -> None:
    """One Tune experiment over the open jobs, under a fresh name in a scratch folder that is removed again."""
    import ray
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig

    jobs_ref = (ray.put(list(bridge.jobs)),)
    ceiling = max((node.get("memory", 0.0) for node in _nodes()), default=0.0)
    requests = [request(job, ceiling) for job in bridge.jobs]

    def trainable(config: dict[str, Any]) -> None:
        _trial(jobs_ref, config["job"], marker)

    def resources(config: dict[str, Any]) -> Any:
        return tune.PlacementGroupFactory([requests[config["job"]]])

    running: dict[str, Any] = {}  # trials by id

    class Callback(tune.Callback):
        checked = time.monotonic()

        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            bridge.cluster_lost = bridge.cluster_lost or _cluster_lost()
            if bridge.stopping:
                _kill(running)
            elif running:
                self.checked = time.monotonic()
            elif time.monotonic() - self.checked > CHECK_SECONDS:  # Ray would wait for ever for a machine that is gone
                self.checked = time.monotonic()
                with bridge.keep_error():
                    check([bridge.jobs[number] for number in bridge.open], _nodes())

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
    name = f"bench-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    remove_of_the_dead(scratch)
    with contextlib.suppress(OSError):
        (scratch / name).mkdir(parents=True)
        (scratch / name / SESSION).write_text(_sessions[-1] if _sessions else "")
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


def _cluster_lost() -> bool:
    """Whether the raylet or the store of a cluster that we started has ended; what uses them next would end with them."""
    import ray

    node = getattr(ray._private.worker, "_global_node", None)
    try:
        return any(name in ("raylet", "gcs_server") for name, _ in node.dead_processes()) if node is not None else False
    except Exception:  # a cluster of somebody else, or another version of Ray
        return False


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
    set_environment(local=address is None)
    import ray

    for logger in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    with handler_kept():  # Ray's own handler of SIGTERM prints a stack and ends the process
        session = _start(address)
    if session is not None:
        _sessions.append(str(session))
    try:
        yield
    finally:
        with finishing():  # cut off half-way, Ray would end this process without a word and with another exit code
            ray.shutdown()
            if session is not None:  # else /tmp/ray would keep every session for ever
                _sessions.remove(str(session))
                shutil.rmtree(session, ignore_errors=True)


def _start(address: str | None) -> Path | None:
    """Start or join a cluster; returns the session folder of one that we started."""
    import ray

    root = str(Path(bench.__file__).resolve().parent.parent)
    paths = [root, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root)]
    workers = {"PYTHONPATH": os.pathsep.join(paths), "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": False}
    if address is not None:
        try:
            ray.init(address, runtime_env={"env_vars": workers}, **quiet)
        except Exception as error:  # what Ray raises here has no common base; its messages repeat the address
            why = first_line(str(error).strip() or type(error).__name__, 300)
            raise ResourceError(without_credentials(f"cannot use the Ray cluster at {address}: {why}")) from None
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


def _nodes() -> list[dict[str, float]]:
    """The resources of the machines that are alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


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
    set_environment(local=True)
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
