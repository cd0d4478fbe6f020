"""What an epoch of each method costs against the passes that it inherently needs, and how many these are.

The passes (forward with and without gradient, full passes, backward, optimiser) are timed where they happen, by the clocks of
`bench profile`, so the ratio says what augmentation, selection, mixtures and book-keeping add to them. FE: forward-equivalents
per training image in an epoch of the method's main stage; a forward pass is 1, a forward and backward pass 3.

    python tests/benchmarks/method_cost.py [--model cnn6] [--dataset spurious-digits] [--only erm ...]
"""

from __future__ import annotations

import argparse

from bench.method import methods
from bench.profile import profile

PASSES = ("forward", "guess", "inference", "backward", "optimiser")
TARGET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn6")
    parser.add_argument("--dataset", default="spurious-digits")
    parser.add_argument("--noise", default="uniform-flip@0.3")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    axes = {"dataset": args.dataset, "noise": args.noise, "model": args.model}
    print(f"{args.dataset}, {args.noise}, {args.model}, {args.device}, one thread; target: epoch / passes <= {TARGET}")
    print(f"{'method':<18} {'FE/image':>9} {'stated':<60} {'epoch':>8} {'passes':>8} {'ratio':>6}")
    for slug in args.only or methods():
        found = profile(slug, axes=axes, epochs=args.epochs, device=args.device, threads=1, figure=False)
        (facts,) = found["methods"]
        if facts["status"] != "done":
            print(f"{slug:<18} {facts['status']}: {facts['reason']}")
            continue
        seconds = facts["seconds"]
        passes = sum(seconds[name] for name in PASSES)
        epoch = sum(seconds.values()) - seconds["evaluation"]
        line = f"{slug:<18} {facts['forward_equivalents_per_image']:>9.1f} {methods()[slug].cost:<60.60}"
        print(f"{line} {1000 * epoch:>6.0f}ms {1000 * passes:>6.0f}ms {epoch / passes:>6.3f}", flush=True)


if __name__ == "__main__":
    main()
