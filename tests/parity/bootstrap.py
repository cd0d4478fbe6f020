"""Bootstrapping against xingjunm/dimensionality-driven-learning (Keras): python tests/parity/bootstrap.py --reference PATH"""

from __future__ import annotations

import common
from keras_on_torch import on_logits, stubs

from bench.ops.losses import bootstrap_hard, bootstrap_soft
from methods.bootstrap import Bootstrap


def main() -> None:
    released = common.module(common.reference_file(common.reference_path(__doc__), "loss.py", "60b5aa4653"), stubs())
    soft, hard = on_logits(released.boot_soft), on_logits(released.boot_hard)
    logits, labels = common.some_logits()
    compared = {
        "soft losses per sample": common.difference(bootstrap_soft(logits, labels, 0.95), soft(logits, labels)),
        "hard losses per sample": common.difference(bootstrap_hard(logits, labels, 0.8), hard(logits, labels)),
    }
    for form, loss in (("soft", soft), ("hard", hard)):
        ours, theirs = common.begun(Bootstrap(form=form)), common.Released()
        for epoch in range(3):
            common.train(ours, epoch)
            theirs.epoch(epoch, lambda network, batch, loss=loss: loss(network(batch.images), batch.labels).mean())
        compared[f"weights and batch statistics after 3 epochs, {form}"] = common.difference(ours.net.network, theirs.network)
    common.write_result(Bootstrap.slug, Bootstrap.code, compared, notes="Keras backend replaced by torch, epsilon 1e-7")


if __name__ == "__main__":
    main()
