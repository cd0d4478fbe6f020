"""dro-topk against the CVaR of YyzHarry/SubpopBench @4d3dbbe (`form: cvar`; `top-k` where tau times the batch is whole).

Run: python tests/parity/dro_topk.py --reference CHECKOUT
"""

from __future__ import annotations

from common import SETTING, Released, begun, difference, module, on_cpu, reference_file, reference_path, train, write_result
from torch.nn.functional import cross_entropy

from methods.dro_topk import DROTopK

FILE, BLOB = "subpopbench/learning/joint_dro.py", "135362ed7a23a663d9eb6da01cc0652ea16b0bcb"
with on_cpu():
    released = module(reference_file(reference_path(__doc__), FILE, BLOB))
    found: dict[str, float] = {}
    for form, tau, count in (("cvar", 0.3, 76), ("cvar", 0.7, 76), ("top-k", 0.25, 64)):
        robust = released.RobustLoss(tau, 0, "cvar")
        method, other = begun(DROTopK(tau=tau, form=form), count=count), Released(count=count)
        for epoch in range(3):
            other.epoch(epoch, lambda net, b, r=robust: r(cross_entropy(net(b.images), b.labels, reduction="none")))
            train(method, epoch)
        found[f"{form}, tau {tau}: network after 3 epochs"] = difference(method.net.network, other.network)
write_result("dro-topk", "YyzHarry/SubpopBench @4d3dbbe", found, setting=SETTING)
