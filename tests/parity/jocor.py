"""jocor against hongxin001/JoCoR @86db359: its joint loss and one optimiser over both networks.

Run: python tests/parity/jocor.py --reference CHECKOUT
"""

from __future__ import annotations

from common import module, on_cpu, reference_file, reference_path, write_result
from pairs import PURITY, RATE, SETTING, ReleasedPair, compare

from methods.jocor import JoCoR

BLOB = "119eec0ada723b4bc80f883cc2dca0e58d4449aa"
with on_cpu():
    released = module(reference_file(reference_path(__doc__), "algorithm/loss.py", BLOB))

    def loss(a, b, labels, index):
        first, second, *_ = released.loss_jocor(a, b, labels, RATE, index, PURITY, co_lambda=0.9)
        return first, second

    found = compare(JoCoR(lam=0.9, forget_rate=RATE, ramp_epochs=1), ReleasedPair(together=True), loss)
write_result("jocor", "hongxin001/JoCoR @86db359", found, setting=SETTING)
