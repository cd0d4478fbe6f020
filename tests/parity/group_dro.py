"""group-dro, both rules, against the LossComputer of kohpangwei/group_DRO @cbbc1c5.

The released adjustment adds its constants to the value of the loss as well; gradients, weights and networks are compared.

Run: python tests/parity/group_dro.py --reference CHECKOUT
"""

from __future__ import annotations

import numpy as np
import torch
from common import SETTING, Released, begun, difference, module, on_cpu, reference_file, reference_path, train, write_result
from torch import nn

from methods.group_dro import GroupDRO

GROUPS = torch.tensor([0] * 30 + [1] * 4 + [2] * 16 + [3] * 26)
NEEDS = {"needs": frozenset({"groups"}), "granted": {"groups": GROUPS}}


class Groups:
    """What the released class asks of a data set."""

    n_groups = 4
    group_str = str

    @staticmethod
    def group_counts() -> torch.Tensor:
        return torch.bincount(GROUPS).float()


with on_cpu():
    released = module(reference_file(reference_path(__doc__), "loss.py", "8587039953e92991f64c0b834fb527d4425ba256"))
    found: dict[str, float] = {}
    for name, ours, theirs in (
        ("exponentiated weights", GroupDRO(step_size=0.5, balanced=False), {"step_size": 0.5}),
        (
            "with adjustment 2", GroupDRO(step_size=0.5, adjustment=2.0, balanced=False),
            {"step_size": 0.5, "adj": np.full(4, 2.0)},
        ),
        ("greedy", GroupDRO(rule="greedy", balanced=False), {"btl": True}),
    ):  # fmt: skip
        computer = released.LossComputer(nn.CrossEntropyLoss(reduction="none"), True, Groups, alpha=0.2, **theirs)
        method, other = begun(ours, **NEEDS), Released(**NEEDS)
        for epoch in range(3):
            other.epoch(
                epoch, lambda net, b, c=computer: c.loss(net(b.images), b.labels, GROUPS[b.index], is_training=True)
            )
            train(method, epoch)
        if name != "greedy":
            found[f"{name}: weights of the groups"] = difference(method.weights, computer.adv_probs)
        else:
            found[f"{name}: running losses of the groups"] = difference(method.average, computer.exp_avg_loss)
        found[f"{name}: network after 3 epochs"] = difference(method.net.network, other.network)
write_result("group-dro", "kohpangwei/group_DRO @cbbc1c5", found, setting=SETTING + ", 4 groups of 30, 4, 16 and 26")
