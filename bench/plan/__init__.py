"""From a suite to its cells: grid expansion, recipes, precedence, and the state of every cell.

Precedence is command line > suite > recipe > class default. Within the suite the more specific place wins: suite, grid,
method entry, then the `where` rules in order. The origin of every value is kept, so that `bench plan` and `bench show`
can say where it came from.
"""

from __future__ import annotations

from bench.plan.entries import PLAN_SCHEMA, Entry, Origins, Overrides, Plan
from bench.plan.planner import make_plan
from bench.plan.states import Scan, scan

__all__ = ["PLAN_SCHEMA", "Entry", "Origins", "Overrides", "Plan", "Scan", "make_plan", "scan"]
