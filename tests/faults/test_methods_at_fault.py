"""What a method can do wrong, in one suite with sound methods around it: it fails alone, says why, and can be mended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.records import load_records
from faults.commands import INLINE, Command, outcomes, record_bytes, started, suite_text, write_suite

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks")]

METHOD = """\
import os
import time
import numpy as np
import torch
from bench.method import LossMethod
from bench.ops.losses import cross_entropy

class Broken(LossMethod):
    slug = "{slug}"
    def loss(self, logits, batch):
        losses = cross_entropy(logits, batch.labels)
        if self.task.current_epoch == 1:
            {fault}
        return losses
"""
#: what is done in the second epoch, and what the record then says
FAULTS = {
    "raises": ("raise RuntimeError('out of ideas')", "failed", "RuntimeError: out of ideas"),
    "hangs": ("[time.sleep(0.01) for _ in iter(int, 1)]", "failed", "exceeded the time limit of 2 s"),
    "nan": ("return losses * float('nan')", "diverged", "the training loss is not finite in epoch 1"),
    "infinite": ("return losses / 0.0", "diverged", "the training loss is not finite in epoch 1"),
    "leaves": ("raise SystemExit(0)", "failed", "the method ended the process: SystemExit(0)"),
    "host-torch": ("torch.ones(1 << 36).sum()", "failed", "out of memory: "),
    "host-numpy": ("np.ones(1 << 33).sum()", "failed", "out of memory: Unable to allocate 64.0 GiB"),
    "host-python": ("bytearray(1 << 36)", "failed", "out of memory: "),
    "device": (
        "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')", "failed",
        "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB",
    ),
}  # fmt: skip
LIMIT = 24  # GiB of address space, less than any of the three allocations above


def write(folder: Path, *, mended: bool = False) -> None:
    for slug, (fault, _, _) in FAULTS.items():
        (folder / f"{slug}.py").write_text(METHOD.format(slug=slug, fault="pass" if mended else fault))


def test_faults_of_methods_stay_their_own_and_can_be_mended(tmp_path: Path) -> None:
    files = ", ".join(f"./{slug}.py" for slug in FAULTS)
    text = suite_text(f"[erm, {files}, gce]", seeds="1", more="resources: {time_limit: 2}\n")
    folder = write_suite(tmp_path / "suite", text)
    write(folder)
    results = folder / "results" / "tiny"
    shell = ("bash", "-c", f'ulimit -v {LIMIT << 20}; exec "$0" "$@"')
    with started(folder, "run", "tiny.yaml", *INLINE, prefix=shell) as run:
        assert run.finish() == 1, run.text
        assert "Traceback" not in run.text
    records = {record["cell"]["method"]["name"]: record for record in load_records(results).values()}
    for slug, (_, status, reason) in FAULTS.items():
        assert records[slug]["status"] == status and reason in records[slug]["reason"], records[slug]["reason"]
        assert slug == "leaves" or records[slug]["curve"]["epoch"] == [0], "what was reached is kept"
        assert any(line.startswith(f"{status}: digits none {slug} seed 0: ") for line in run.lines)
    assert {records[name]["status"] for name in ("erm", "gce")} == {"done"}, "the others finish, also after a fault"
    assert run.lines[-2] == "tiny: 2 diverged, 2 done, 7 failed; ran 11 now"
    assert "bench run tiny.yaml --executor inline --tracking none --retry-failed" in run.lines[-1]
    sound = {name: content for name, content in record_bytes(results).items() if '"status": "done"' in content.decode()}

    write(folder, mended=True)
    again = Command(folder, "run", "tiny.yaml", *INLINE, "--retry-failed")
    assert again.finish() == 0 and again.lines[-1] == "tiny: 11 done; ran 9 now", again.text
    assert len(sound) == 2 and sound.items() <= record_bytes(results).items(), "finished records are not touched"

    fresh = write_suite(tmp_path / "fresh", text)
    write(fresh, mended=True)
    assert Command(fresh, "run", "tiny.yaml", *INLINE).finish() == 0
    assert outcomes(fresh / "results" / "tiny") == outcomes(results)
