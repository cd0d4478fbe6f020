"""Privileged information that a method can ask for, with the footnote that its rows get in a table."""

from __future__ import annotations

NEEDS = {
    "noise_rate": "is told the noise rate of the training labels",
    "transition_matrix": "is told the noise transition matrix",
    "groups": "is told the group of every training sample, which reveals its true label",
    "trusted": "is given training samples whose labels are known to be right",
    "validation": "sees its validation accuracy during training",
}
