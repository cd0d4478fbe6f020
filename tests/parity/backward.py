"""Backward correction against giorgiop/loss-correction: python tests/parity/backward.py --reference PATH"""

from __future__ import annotations

from loss_correction import compare

from bench.ops.transitions import backward_correction, inverse_transition
from methods.backward import Backward

if __name__ == "__main__":
    # three epochs leave predictions so alike that T is nearly singular and its inverse magnifies rounding: mixed with I
    compare(
        Backward,
        lambda logits, labels, given: backward_correction(logits, labels, inverse_transition(given)),
        ((97.0, 0.5), (None, 0.5)),
    )
