"""What a search did, in words: the budget each method was given, what it spent, and what was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def search_json(search: Mapping[str, Any]) -> str:
    """The content of `search.json`: a line per key and per trial, so that a change reads well as a diff."""

    def study_text(study: Mapping[str, Any]) -> str:
        head = json.dumps({key: value for key, value in study.items() if key != "trials"})
        trials = ",\n".join("    " + json.dumps(trial) for trial in study["trials"])
        return f'  {head[:-1]}, "trials": [' + (f"\n{trials}\n  " if trials else "") + "]}"

    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in search.items() if key != "studies")
    studies = ",\n".join(study_text(study) for study in search["studies"])
    return f'{{\n{head},\n"studies": [\n{studies}\n]\n}}\n'


def search_text(search: Mapping[str, Any]) -> str:
    """A table of the studies for the terminal, and a sentence that says how the settings were chosen."""
    from tabulate import tabulate

    rows = []
    for study in search["studies"]:
        trials = study["trials"]
        bad = sum(trial["state"] in ("failed", "diverged") for trial in trials)
        known = sum(trial["state"] != "missing" for trial in trials)
        tried = f"{known} of {search['budget']}" if study["space"] else "not searched"
        values = [trial["value"] for trial in trials if trial["value"] is not None]
        spread = f"{100 * min(values):.1f} to {100 * max(values):.1f}" if values else ""
        setting = ", ".join(f"{name}={value}" for name, value in (study["setting"] or {}).items())
        chosen = setting or {"given": "as given", "failed": "no setting finished"}.get(study["state"], "searching")
        rows.append((study["method"], study["dataset"], ", ".join(study["noises"]), tried, bad or "", spread, chosen))
    headers = ("method", "data set", "noises", "settings", "failed", "val. acc. %", "chosen")
    table = tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)
    labels = sorted({study["validation"] for study in search["studies"] if study["validation"]})
    spent = search["spent"]
    return (
        f"Did you tune the baselines? {search['searcher']} search, {search['budget']} settings of every searched method, "
        f"seeds {_listed(search['tune_seeds'])}, chosen by {search['select']} ({'; '.join(labels) or 'nothing measured yet'}) "
        f"per {search['per']}; reported on seeds {_listed(search['seeds'])}.\n{table}\n"
        f"spent: {spent['settings']} settings, {spent['cells']} cells, {spent['failed']} settings failed, "
        f"{spent['diverged']} diverged, {spent['missing']} open, {spent['seconds']:.0f} s"
    )


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
