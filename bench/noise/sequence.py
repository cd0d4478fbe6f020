"""Several noises one after another: a long tail and then wrong labels, or hybrid noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.fields import FieldError
from bench.noise import (
    Corruption,
    Labels,
    NoiseInput,
    NoiseKind,
    PlannedNoise,
    build,
    noise_class,
    noise_identity,
    plan_noise,
    short_form,
)


class SequenceOfNoises(NoiseKind):
    """Each step changes the labels that the step before left; rate and matrix are those of the end against the truth.

    A suite writes `longtail@0.1 + symmetric@0.4`, or `{kind: sequence, steps: [...]}` with steps as short forms or
    mappings. Each step has a random stream of its own.
    """

    slug = "sequence"
    summary = "steps one after another; short form A + B, for example longtail@0.1 + symmetric@0.4"
    short_field = ""

    def __init__(self, steps: Sequence[Mapping[str, Any]] = ()) -> None:
        self.steps = [build(noise_identity(step)) for step in steps]

    @classmethod
    def identity(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"steps": [noise_identity(step) for step in params.get("steps", ())]}

    @classmethod
    def plan(cls, params: Mapping[str, Any], folders: Sequence[Path]) -> PlannedNoise:
        for name in params:
            if name != "steps":
                raise FieldError(str(name), f"sequence has no field {name!r}", "valid: steps")
        steps = params.get("steps")
        if not isinstance(steps, (list, tuple)) or len(steps) < 2:
            raise FieldError("steps", "a sequence needs a list of two noises or more", "for example longtail@0.1 + symmetric@0.4")
        planned = []
        for number, step in enumerate(steps):
            if not isinstance(step, (str, Mapping)):
                raise FieldError("steps", f"step {number} is neither a short form nor a mapping")
            planned.append(plan_noise(step, folders))
            if planned[-1].identity["kind"] == cls.slug:
                raise FieldError("steps", "a sequence within a sequence", "write its steps one after another")
            if planned[-1].identity["kind"] == "open-set" and number + 1 < len(steps):
                raise FieldError("steps", "open-set noise replaces pictures and can only be the last step")
        identity = {"kind": cls.slug, "version": cls.version, "steps": [step.identity for step in planned]}
        files = {sha256: place for step in planned for sha256, place in step.files.items()}
        rate = next((step.rate for step in reversed(planned) if step.rate), 0.0)
        return PlannedNoise(identity, " + ".join(step.label for step in planned), rate, files)

    @classmethod
    def label(cls, identity: Mapping[str, Any]) -> str:
        return " + ".join(short_form(step) for step in identity["steps"])

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        reasons = [noise_class(step["kind"]).misfit(dataset, step) for step in (fields or {}).get("steps", ())]
        return next((reason for reason in reasons if reason), None)

    def definition(self) -> str:
        return "; then ".join(step.definition() for step in self.steps)

    @property
    def nominal(self) -> float | None:
        """That of the last step that makes labels wrong."""
        rates = [step.nominal for step in reversed(self.steps)]
        return next((rate for rate in rates if rate != 0), 0.0)

    def corrupt(self, data: NoiseInput, rng: np.random.Generator) -> Corruption:
        seeds = rng.integers(0, 2**63, len(self.steps))
        kept = np.arange(len(data.labels))
        everyone, replaced = len(kept), None
        for seed, step in zip(seeds, self.steps, strict=True):
            made = step.corrupt(data, np.random.Generator(np.random.PCG64(int(seed))))
            if made.keep is not None:
                kept, data = kept[made.keep], data.part(made.keep)
            replaced = made.replaced
            data = data.with_labels(made.labels)
        return Corruption(data.labels, kept if len(kept) < everyone else None, replaced)

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        return self.corrupt(data, rng).labels
