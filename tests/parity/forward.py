"""Forward correction against giorgiop/loss-correction: python tests/parity/forward.py --reference PATH"""

from __future__ import annotations

from loss_correction import compare

from bench.ops.transitions import forward_correction
from methods.forward import Forward

if __name__ == "__main__":
    compare(Forward, forward_correction, ((97.0, 0.0), (None, 0.0), (97.0, 0.5)))
