"""The conformance battery: what every method must withstand, run on miniature data in a few seconds.

`bench check METHOD_OR_FILE` prints it, the tests run it over every discovered method. A check is a function that gets a
`Subject` and returns a line about it, or raises `Failure` with what to do. An exception of any other kind is a fault of
the battery itself and is not caught.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from bench.check import access, outcomes, source, survival
from bench.check.subject import Failure, Subject
from bench.check.worker import the_worker

__all__ = ["CHECKS", "Check", "Failure", "Result", "Subject", "check_method", "run_check"]


@dataclass(frozen=True)
class Check:
    """One condition. `function` says what it found, or raises `Failure`; its docstring is the condition in a line."""

    name: str
    function: Callable[[Subject], str]


class Result(TypedDict):
    check: str
    passed: bool
    detail: str


CHECKS: list[Check] = [
    Check("trains", outcomes.trains),
    Check("deterministic", outcomes.deterministic),
    Check("seeds", outcomes.seeds),
    Check("resume", outcomes.resume),
    Check("options", outcomes.options),
    Check("clean-labels", access.clean_labels),
    Check("needs", access.needs),
    Check("random-state", access.random_state),
    Check("predictions", outcomes.predictions),
    Check("clean-scores", outcomes.clean_scores),
    Check("checkpoint", outcomes.checkpoint),
    Check("cost", outcomes.cost),
    Check("worker", outcomes.worker),
    Check("single-sample", survival.single_sample),
    Check("batch-of-one", survival.batch_of_one),
    Check("small-data", survival.small_data),
    Check("class-missing", survival.class_missing),
    Check("equal-labels", survival.equal_labels),
    Check("empty-sets", survival.empty_sets),
    Check("settings", source.settings),
    Check("reach", source.reach),
    Check("size", source.size),
]


def check_method(
    reference: str, say: Callable[[str], object] = print, checks: Sequence[Check] = tuple(CHECKS)
) -> list[Result]:
    """Run the battery on a slug, or on the path of a file; `say` receives a line per check and a summary.

    Raises `FieldError` where there is no such method, or its `smoke` names a field or value that it has not.
    """
    begin = time.perf_counter()
    subject = Subject(reference)
    say(f"{subject.cls.slug}: {subject.cls.level} level, {subject.source.name}")
    if any(check.function is outcomes.worker for check in checks):
        the_worker()  # starts while the other checks run
    results = []
    for check in checks:
        results.append(run_check(check, subject))
        say(f"  {'ok  ' if results[-1]['passed'] else 'FAIL'} {check.name:<14} {results[-1]['detail']}")
    failed = sum(not result["passed"] for result in results)
    outcome = f"{failed} of {len(results)} checks failed" if failed else f"all {len(results)} checks passed"
    say(f"{subject.cls.slug}: {outcome} in {time.perf_counter() - begin:.1f} s")
    return results


def run_check(check: Check, subject: Subject) -> Result:
    """The result of one check; runs that it shares with others are made once per subject."""
    try:
        return {"check": check.name, "passed": True, "detail": check.function(subject)}
    except Failure as failure:
        return {"check": check.name, "passed": False, "detail": str(failure)}
