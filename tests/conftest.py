"""What every test process needs before anything imports Ray, which reads its settings then: quiet, and a token of our own, or
Ray would write one into the home directory."""

from __future__ import annotations

from bench.schedule.ray_environment import set_environment

set_environment(local=True)
