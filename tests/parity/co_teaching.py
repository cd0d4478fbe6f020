"""co-teaching against bhanML/Co-teaching @7c7fbe2. The released loss divides by the number of kept samples twice: undone here.

Run: python tests/parity/co_teaching.py --reference CHECKOUT
"""

from __future__ import annotations

from common import module, on_cpu, reference_file, reference_path, write_result
from pairs import PURITY, RATE, SETTING, ReleasedPair, compare

from methods.co_teaching import CoTeaching

with on_cpu():
    released = module(reference_file(reference_path(__doc__), "loss.py", "8a21c9db3cc654edd59b2d074e220454fc496bb5"))

    def loss(a, b, labels, index):
        kept = int((1 - RATE) * len(labels))
        first, second, *_ = released.loss_coteaching(a, b, labels, RATE, index, PURITY)
        return first * kept, second * kept

    found = compare(CoTeaching(forget_rate=RATE, ramp_epochs=1), ReleasedPair(), loss)
write_result("co-teaching", "bhanML/Co-teaching @7c7fbe2", found, setting=SETTING)
