"""Small pictures in files, decoded once into one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.files import FileImages


def in_memory(images: FileImages) -> NDArray[np.uint8]:
    """All pictures under the evaluation transform, uint8 [N, 3, c, c] in index order, written into one array."""
    pixels = np.empty((len(images), *images.shape), dtype=np.uint8)
    done = 0
    for block in images.passes(1024):
        pixels[done : done + len(block)] = block
        done += len(block)
    return pixels
