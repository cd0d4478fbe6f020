"""What `bench data check` and `bench data get` do; the command line only prints what these return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import DataError, Finding, data_root, dataset_class
from bench.fields import FieldError

#: data sets that can be fetched, with the class of torchvision that does it
_DOWNLOADS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


@dataclass(frozen=True)
class Report:
    """What `bench data check NAME` found below `root`."""

    dataset: str
    title: str
    root: Path | None  # None: embedded, there is nothing to look for
    layout: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """JSON values: dataset, title, root, layout, ok, findings, and the facts of all findings (splits, fingerprint)."""
        facts: dict[str, Any] = {}
        for finding in self.findings:
            for key, value in finding.facts.items():
                if isinstance(value, dict):
                    facts[key] = {**facts.get(key, {}), **value}
                elif isinstance(value, list):
                    facts[key] = [*facts.get(key, []), *value]
                else:
                    facts[key] = value
        root = None if self.root is None else str(self.root)
        found = [{"ok": finding.ok, "text": finding.text} for finding in self.findings]
        head = {"dataset": self.dataset, "title": self.title, "root": root, "layout": self.layout, "ok": self.ok}
        return {**head, **facts, "findings": found}

    def as_text(self) -> str:
        """One line per finding; those that are not as they should be begin with `!!`. Ends without a line break."""
        place = "embedded" if self.root is None else f"in {self.root}"
        lines = [f"{self.title} ({self.dataset}), {place}"]
        lines += [f"{'ok' if finding.ok else '!!'}  {finding.text}" for finding in self.findings]
        if not self.ok and self.layout:
            lines.append(f"expected below {self.root}: {self.layout}")
        return "\n".join(lines)


def check(
    name: str, root: Path | str | None = None, params: Mapping[str, Any] | None = None, *, deep: bool = False
) -> Report:
    """Examine a data set and its packs below a data folder (see `data_root`); `deep` reads every block of the packs.

    Raises `FieldError` for unknown names and options only.
    """
    from bench.data.packed import examine

    cls = dataset_class(name)
    dataset = cls(**(params or {}))
    place = None if cls.embedded else data_root(root)
    try:
        findings = dataset.check(place)
        findings += [] if place is None else examine(dataset, place, deep=deep)
    except DataError as error:
        findings = [Finding(False, str(error))]
    return Report(name, cls.title, place, cls.layout, tuple(findings))


def get(name: str, root: Path | str | None = None) -> Report:
    """Download a data set into a data folder and check it there; files that are already official are kept.

    Raises `FieldError` for a data set that has to be brought by hand, and `DataError` when the download fails or would
    write over files that are not the official ones.
    """
    cls, top = dataset_class(name), data_root(root)
    if name not in _DOWNLOADS:
        what = "it is embedded" if cls.embedded else f"bring the files yourself: {cls.layout}"
        raise FieldError("dataset", f"{name} is not downloaded; {what}", "valid: " + ", ".join(_DOWNLOADS))
    before = check(name, top)
    if before.ok and before.as_json()["canonical"]:
        return before
    folder = top / cls.layout.split("/")[0]
    if folder.exists() and any(folder.iterdir()):
        raise DataError("there are files that are not the official ones; move them away", where=folder, dataset=name)
    _download(name, top)
    return check(name, top)


def _download(name: str, top: Path) -> None:
    import torchvision.datasets

    try:
        top.mkdir(parents=True, exist_ok=True)
        getattr(torchvision.datasets, _DOWNLOADS[name])(str(top), train=True, download=True)
    except (OSError, RuntimeError) as error:  # no network, no space, a wrong checksum
        raise DataError(f"the download failed: {error}", where=top, dataset=name) from error
