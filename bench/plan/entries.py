"""What a plan holds: its cells as the tables call them, and what the command line asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.suite import Suite
from bench.yaml_source import Path_

PLAN_SCHEMA = 1
Origins = dict[str, str]


@dataclass(frozen=True)
class Entry:
    """One cell that a suite wants, with what tables call it. `skip` is the reason of an exclude rule."""

    id: str
    cell: dict[str, Any]
    dataset: str
    noise: str
    method: str
    seed: int
    title: str
    needs: tuple[str, ...]
    networks: int
    skip: str | None = None
    method_path: str | None = None
    origins: Origins = field(default_factory=dict)
    #: the nominal rate that rules match on, and where label files are: sha256 of the vector -> path or path#key
    rate: float = 0.0
    noise_files: dict[str, str] = field(default_factory=dict)
    #: where its method, noise, data set and seed stand in the suite
    places: tuple[Path_, ...] = ()
    #: what an ablation, a sensitivity sweep or a search varies in this row (see suites/README.md), None elsewhere
    variant: dict[str, Any] | None = None

    def label(self) -> str:
        return f"{self.dataset} {self.noise} {self.method} seed {self.seed}"

    @property
    def is_trial(self) -> bool:
        """Whether a search only tries this cell; what it reports is another row."""
        return self.variant is not None and "trial" in self.variant

    def shown(self) -> dict[str, Any]:
        """The entry as `plan.json` and the report take it."""
        shown = {
            "id": self.id, "dataset": self.dataset, "noise": self.noise, "method": self.method, "seed": self.seed,
            "title": self.title, "needs": list(self.needs), "networks": self.networks, "skip": self.skip,
        }  # fmt: skip
        return shown if self.variant is None else {**shown, "variant": self.variant}


@dataclass(frozen=True)
class Plan:
    """All cells of a suite, those that a search tries among them. `search` is what `search.json` holds."""

    suite: Suite
    entries: list[Entry]
    sources: dict[str, str]
    notes: list[str]
    overrides: Overrides
    search: dict[str, Any] | None = None

    def manifest(self) -> dict[str, Any]:
        """What `bench status` and `bench table` read, so that they need no torch to know what the suite wants."""
        entries = [entry.shown() for entry in self.entries if not entry.is_trial]
        head: dict[str, Any] = {"schema": PLAN_SCHEMA, "suite": self.suite.name, "sources": self.sources}
        if self.overrides.digest():
            head["overrides"] = {"set": dict(self.overrides.set), "seeds": self.overrides.seeds}
        head |= self.suite.kind_facts()
        if self.suite.kind == "tune":
            head["trials"] = [entry.shown() for entry in self.entries if entry.is_trial]
        return {**head, "entries": entries}


@dataclass(frozen=True)
class Overrides:
    """What the command line asks for: `only` axis -> values, `set` dotted key -> value, seeds."""

    only: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """From Python a single value need not be a list."""
        only = {axis: list(v) if isinstance(v, (list, tuple, set)) else [v] for axis, v in self.only.items()}
        object.__setattr__(self, "only", only)

    def digest(self) -> str | None:
        """Names the set of cells these overrides make, None when they leave the suite's cells as they are."""
        if not self.set and self.seeds is None:
            return None
        text = json.dumps([dict(self.set), list(self.seeds) if self.seeds is not None else None], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]
