"""Plain training against PaulAlbert31/LabelNoiseCorrection: python tests/parity/erm.py --reference PATH"""

from __future__ import annotations

from types import SimpleNamespace

import common
import numpy as np
import torch.nn.functional as F

from methods.erm import ERM


class Loader(list):  # type: ignore[type-arg]
    """Batches with the attribute that their progress line reads."""

    dataset = range(76)


def main() -> None:
    path = common.reference_file(common.reference_path(__doc__), "utils.py", "c813fb7af4")
    released = common.definitions(path, "train_CrossEntropy", F=F, np=np)
    ours, theirs = common.begun(ERM()), common.Released()
    for epoch in range(3):
        common.train(ours, epoch)
        theirs.task.start_epoch(epoch)
        loader = Loader((batch.images, batch.labels) for batch in theirs.task.batches())
        options = SimpleNamespace(batch_size=16, log_interval=100)
        released.train_CrossEntropy(options, theirs.network, "cpu", loader, theirs.optimizer, epoch)
    compared = {"weights and batch statistics after 3 epochs": common.difference(ours.net.network, theirs.network)}
    common.write_result(ERM.slug, ERM.code, compared)


if __name__ == "__main__":
    main()
