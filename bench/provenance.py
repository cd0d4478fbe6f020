"""Where a number comes from: versions, commit, machine, and a fingerprint of the code that made it."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import bench

_ROOT = Path(bench.__file__).resolve().parent.parent
_OURS = ("bench", "methods")


@functools.cache
def git_state() -> tuple[str | None, bool | None]:
    """(commit, dirty) of the checkout that the package runs from; (None, None) outside of one."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not (_ROOT / ".git").exists():
        return None, None
    commit = git("rev-parse", "HEAD")
    # Results change while a suite runs; what matters is whether the code that runs is the committed one.
    status = git("status", "--porcelain", "--", "bench", "methods", "pyproject.toml")
    return commit, (status != "" if status is not None else None)


@functools.cache
def code_fingerprint(path: Path) -> str:
    """SHA-256 (16 digits) over a method's file and every file of ours that it imports, directly or not."""
    seen: dict[Path, bytes] = {}
    waiting = [Path(path).resolve()]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen[file] = file.read_bytes()
        waiting += _imports(file, seen[file])
    digest = hashlib.sha256()
    for file in sorted(seen, key=lambda f: f.name if not f.is_relative_to(_ROOT) else str(f.relative_to(_ROOT))):
        digest.update(hashlib.sha256(seen[file]).digest())
    return digest.hexdigest()[:16]


@functools.cache
def _imports(file: Path, source: bytes) -> tuple[Path, ...]:
    """The files of ours that a file imports; methods share most of them, so each is parsed once."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source, filename=str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (_module_file(name) for name in names if name.split(".")[0] in _OURS)
    return tuple(sorted(found for found in files if found is not None))


def _module_file(name: str) -> Path | None:
    base = _ROOT.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def describe(device: Any, executor: str, method_path: Path) -> dict[str, Any]:
    """The provenance block of a record, without the clock."""
    import torch

    commit, dirty = git_state()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "bench": bench.__version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "code": code_fingerprint(method_path),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type}: {name}",
        "host": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8],
        "platform": f"{platform.system()}-{platform.machine()}",
        "executor": executor,
    }


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
