"""Imported once by the process that commands are forked from, so that a command starts in milliseconds."""

import matplotlib.pyplot
import mlflow
import sklearn.datasets
import torch

import bench.api
import bench.cli
import bench.data.digits
import bench.plan
import bench.report
import bench.trial.runner
from bench.method import methods
from bench.provenance import git_state

matplotlib.pyplot, mlflow, torch, bench.api, bench.cli, bench.plan, bench.report, bench.trial.runner  # noqa: B018
methods()
git_state()
sklearn.datasets.load_digits()
bench.data.load({"name": "digits"}, None)
