"""`bench`: reproducible comparison of methods for learning with noisy labels.

`run`, `load_records` and `table` do from Python what the command line does. They are looked up on first use, so that
`import bench` stays cheap (no torch, ray or mlflow).
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_records", "run", "table"]


def __getattr__(name: str) -> Any:
    if name in ("run", "load_records", "table"):
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
