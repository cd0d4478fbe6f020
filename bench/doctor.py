"""What `bench doctor` finds: versions, devices, folders, disk space, the clock, and whether Ray and MLflow answer. Writes nothing
but a probe file, which it removes."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import tempfile
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.live import duration
from bench.safe_text import without_credentials

_PACKAGES = {
    "torch": True, "numpy": True, "pydantic": True, "yaml": True, "sklearn": True, "matplotlib": True, "tabulate": True,
    "ray": False, "mlflow": False, "faiss": False, "torchvision": False, "timm": False,
}  # fmt: skip
_DISTRIBUTIONS = {"yaml": "PyYAML", "sklearn": "scikit-learn", "faiss": "faiss-cpu"}
CONNECT_SECONDS = 3.0
LOW_SPACE = 1e9  # bytes
SKEW_SECONDS = 2.0  # between this machine's clock and that of the file system
_2025 = 1735689600.0  # no clock that is right shows an earlier time


def doctor(
    results: Path, *, data: str | None = None, cache: str | None = None, address: str | None = None, tracking: str | None = None
) -> list[dict[str, Any]]:
    """Findings `{name, ok, required, detail}`. What the caller names (`data`, `address`, `tracking`) is required to be there."""
    from bench.stages import cache_root

    return [
        _finding("python", True, True, platform.python_version()),
        *_packages(),
        *_devices(),
        _folder("results folder", results, True),
        _cache(cache_root(results, cache), results),
        _folder("temporary folder", Path(tempfile.gettempdir()), True),
        _space("disk space", results),
        *_data(data),
        _clock(results),
        _ray(address),
        _mlflow(tracking, results),
    ]


def _finding(name: str, ok: bool, required: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "required": required, "detail": without_credentials(detail)}


def doctor_text(findings: list[dict[str, Any]]) -> str:
    from bench.describe import columns

    marks = {True: "ok", False: "MISSING"}
    rows = [(marks[f["ok"]] if f["ok"] or f["required"] else "-", f["name"], f["detail"]) for f in findings]
    return columns(rows, ("", "", ""))


# -- this machine --------------------------------------------------------------------------------------------------
def _packages() -> list[dict[str, Any]]:
    findings = []
    for name, required in _PACKAGES.items():
        present = util.find_spec(name) is not None
        try:
            version = metadata.version(_DISTRIBUTIONS.get(name, name)) if present else "not installed"
        except metadata.PackageNotFoundError:
            version = "present"
        findings.append(_finding(name, present, required, version))
    return findings


def _devices() -> list[dict[str, Any]]:
    findings = []
    if util.find_spec("torch") is not None:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [f"{torch.cuda.get_device_name(i)} {torch.cuda.mem_get_info(i)[1] / 2**30:.0f} GiB" for i in range(count)]
        findings.append(_finding("GPU", count > 0, False, ", ".join(names) or "none"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    findings.append(_finding("CPU cores", True, True, f"{cores}{memory}"))
    return findings


# -- folders -------------------------------------------------------------------------------------------------------
def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path.resolve(), *path.resolve().parents) if place.exists())


def _folder(name: str, path: Path, required: bool) -> dict[str, Any]:
    """Whether files can be made there, by making one: permissions alone do not tell (read-only file systems, quotas)."""
    place = _existing(path)
    why = "is no folder"
    if place.is_dir():
        try:
            with tempfile.TemporaryFile(dir=place):
                why = ""
        except OSError as error:
            why = error.strerror or str(error)
    if why:
        return _finding(name, False, required, f"{path} (NOT writable: {place}: {why})")
    return _finding(name, True, required, f"{path} (writable{'' if path.exists() else ', to be made'})")


def _cache(cache: Path, results: Path) -> dict[str, Any]:
    if cache.resolve().is_relative_to(results.resolve()):
        return _finding("cache folder", True, False, f"{cache}, in the results folder")
    return _folder("cache folder", cache, False)


def _space(name: str, path: Path) -> dict[str, Any]:
    try:
        usage = shutil.disk_usage(_existing(path))
    except OSError as error:
        return _finding(name, False, False, f"unknown: {error.strerror}")
    low = "" if usage.free >= LOW_SPACE else "; LOW: records and checkpoints may not fit"
    return _finding(name, not low, False, f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free at {path}{low}")


def _data(named: str | None) -> list[dict[str, Any]]:
    root = named or os.environ.get("BENCH_DATA")
    if not root:
        return [_finding("data folder", True, False, "BENCH_DATA not set; embedded data sets only, or those in ./data")]
    folder = Path(root)
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        why = "not readable" if folder.exists() else "not there"
        return [_finding("data folder", False, named is not None, f"{root} ({why})")]
    inside = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    shown = ", ".join(inside[:12]) + (f" and {len(inside) - 12} more" if len(inside) > 12 else "")
    return [_finding("data folder", True, True, f"{root}: {shown or 'empty'}; `bench data check DATASET` examines one")]


def _clock(results: Path) -> dict[str, Any]:
    """This machine's clock against that of the file system, and against common sense."""
    now = time.time()
    if now < _2025:
        return _finding("clock", False, False, f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC is in the past")
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(results), prefix=".bench-clock-") as file:
            begin = time.time()
            file.write(b"x")
            file.flush()
            skew = os.stat(file.name).st_mtime - begin
    except OSError:
        skew = 0.0
    off = abs(skew) > SKEW_SECONDS
    detail = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    way = "ahead" if skew > 0 else "behind"
    return _finding("clock", not off, False, f"{detail}; the file system is {duration(abs(skew))} {way}" if off else detail)


# -- services ------------------------------------------------------------------------------------------------------
def _answers(host: str, port: int) -> str:
    """Why nothing answers there, "" where something does."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""


def _ray(address: str | None) -> dict[str, Any]:
    """Whether something listens at the cluster's address; without one, runs start a cluster of their own."""
    wanted = address or os.environ.get("RAY_ADDRESS")
    if not wanted or wanted == "local":
        here = util.find_spec("ray") is not None
        detail = "none named; runs start one here" if here else "Ray is not installed; use --executor inline"
        return _finding("Ray cluster", here, False, detail)
    if wanted == "auto":
        try:
            wanted = (Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster").read_text().strip()
        except OSError:
            detail = "auto: no cluster was started on this machine (ray start --head)"
            return _finding("Ray cluster", False, address is not None, detail)
    try:
        parts = urlsplit(wanted if "://" in wanted else f"ray://{wanted}")
        host, port = parts.hostname or "", parts.port or (10001 if "://" in wanted else 6379)
    except ValueError:
        return _finding("Ray cluster", False, True, f"{wanted} is not HOST:PORT")
    why = _answers(host, port)
    return _finding("Ray cluster", not why, address is not None, f"{wanted} answers" if not why else f"{wanted}: {why}")


def _mlflow(tracking: str | None, results: Path) -> dict[str, Any]:
    from bench.track import default_uri
    from bench.track_store import store_port, strip_credentials

    if tracking == "none" or (tracking is None and util.find_spec("mlflow") is None):
        return _finding("MLflow store", tracking == "none", False, "off" if tracking == "none" else "MLflow is not installed")
    uri = tracking or default_uri(results)
    shown = strip_credentials(uri)
    if uri.startswith("sqlite"):
        path = Path(uri.partition("///")[2].partition("?")[0])
        folder = _folder("", path.parent, False)
        if not folder["ok"]:
            return _finding("MLflow store", False, tracking is not None, f"{shown}: its folder is not writable")
        return _finding("MLflow store", True, True, f"{shown}{'' if path.exists() else ', to be made'}")
    try:
        parts = urlsplit(uri)
        port = store_port(parts)
    except ValueError:
        port = None
    if port is None or not parts.hostname:
        return _finding("MLflow store", False, True, f"{shown} is no address of a store")
    why = _answers(parts.hostname, port)
    return _finding("MLflow store", not why, tracking is not None, f"{shown} answers" if not why else f"{shown}: {why}")
