"""A class-balanced subset per epoch (Clothing1M's protocol), drawn by the harness."""

from __future__ import annotations

import torch
from small import make_task


def test_each_epoch_sees_a_subset_of_its_own_and_a_resumed_one_the_same() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return torch.randperm(40, generator=torch.Generator().manual_seed(seed % 2**31))[:12]

    def seen(epoch: int) -> list[int]:
        task = make_task(torch.zeros(40, dtype=torch.int64), subset=drawn)
        task.start_epoch(epoch)
        passes = [torch.cat([batch.index for batch in task.batches(batch_size=5)]) for _ in range(2)]
        assert sorted(passes[0].tolist()) == sorted(passes[1].tolist()) and passes[0].tolist() != passes[1].tolist()
        return sorted(passes[0].tolist())

    assert len(seen(0)) == 12 and seen(0) == seen(0) != seen(1)
