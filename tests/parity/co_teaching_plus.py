"""co-teaching-plus against xingruiyu/coteaching_plus @a68ed61, with its softmax before the cross-entropy (`double_softmax`).

Three things of the released loss are undone: the second division by the number of kept samples, the loss of the disagreeing
sample with index 0 (indices are shifted by one; they select nothing else), and the step that it takes on a batch without any
disagreement.

Run: python tests/parity/co_teaching_plus.py --reference CHECKOUT
"""

from __future__ import annotations

from common import module, on_cpu, reference_file, reference_path, write_result
from pairs import PURITY, RATE, SETTING, ReleasedPair, compare

from methods.co_teaching_plus import CoTeachingPlus

with on_cpu():
    released = module(reference_file(reference_path(__doc__), "loss.py", "79dac11c53979ffa76fd8c0aa5185151b01f9748"))

    def loss(a, b, labels, index):
        members = int((a.argmax(1) != b.argmax(1)).sum())
        if members == 0:
            return None
        kept = int((1 - RATE) * members) or members
        first, second, *_ = released.loss_coteaching_plus(a, b, labels, RATE, index + 1, PURITY, 10_000)
        return first * kept, second * kept

    method = CoTeachingPlus(forget_rate=RATE, ramp_epochs=1, warmup=0, double_softmax=True)
    found = compare(method, ReleasedPair(), loss)
write_result("co-teaching-plus", "xingruiyu/coteaching_plus @a68ed61", found, setting=SETTING)
