"""`bench data` and `bench noise` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.cli import main


def bench(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_an_embedded_data_set_is_in_order() -> None:
    done = bench("data", "check", "spurious-digits", "--json")
    facts = json.loads(done.stdout)
    assert done.exit_code == 0 and facts["ok"] and facts["splits"]["test"]["images"] == 710


def test_a_missing_data_set_says_where_its_files_belong(tmp_path: Path) -> None:
    done = bench("data", "check", "cifar10", "--root", str(tmp_path))
    assert done.exit_code == 3 and "cifar-10-batches-py" in done.output and str(tmp_path) in done.output


def test_names_and_downloads_are_checked(tmp_path: Path) -> None:
    done = bench("data", "check", "cifar01")
    assert done.exit_code == 2 and "did you mean cifar10" in done.output
    done = bench("data", "get", "clothing1m", "--root", str(tmp_path))
    assert done.exit_code == 2 and "is not downloaded" in done.output and "cifar10" in done.output


def test_describe_measures_against_the_nominal_rate_and_draws(tmp_path: Path) -> None:
    picture = tmp_path / "matrix.png"
    done = bench("noise", "describe", "digits", "symmetric@0.5", "--seed", "3", "--figure", str(picture))
    assert done.exit_code == 0, done.output
    assert "nominal 50.00 %" in done.output and "sha256" in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    facts = json.loads(bench("noise", "describe", "digits", "{kind: symmetric, rate: 0.5, own_class: false}", "--json").stdout)
    assert facts["rate"] == facts["wrong"] / facts["samples"] == 721 / 1442  # exactly int(0.5 * 1442)


@pytest.mark.parametrize("form", ["dividemix", "scanmix", "npy", "npz", "csv"])
def test_an_exported_file_loads_again(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("labels" + {"dividemix": ".json", "scanmix": ".json"}.get(form, f".{form}"))
    done = bench("noise", "export", "digits", "asymmetric@0.4", "--format", form, "--output", str(path))
    assert done.exit_code == 0, done.output
    again = json.loads(bench("noise", "describe", "digits", f"file@{path}", "--json").stdout)
    assert again["sha256"] in done.output and 0.15 < again["rate"] < 0.25


def test_make_keeps_labels_and_truth(tmp_path: Path) -> None:
    path = tmp_path / "made.npz"
    assert bench("noise", "make", "spurious-digits", "uniform-flip@0.3", "--output", str(path)).exit_code == 0
    with np.load(path) as made:
        assert (made["labels"] != made["true_labels"]).sum() == int(0.3 * 2170)


def test_make_refuses_a_name_that_no_suite_could_use(tmp_path: Path) -> None:
    done = bench("noise", "make", "digits", "none", "--output", str(tmp_path / "made.foo"))
    assert done.exit_code == 2 and "give it the suffix .npz" in done.output and not list(tmp_path.iterdir())


def test_ls_datasets_lists_the_fields() -> None:
    rows = {row["slug"]: row for row in json.loads(bench("ls", "datasets", "--json").stdout)}
    assert rows["image-folder"]["fields"].startswith("folder=, csv=, classes=(), size=0") and rows["digits"]["fields"] == ""


def test_faults_are_named() -> None:
    done = bench("noise", "describe", "digits", "symetric@0.5")
    assert done.exit_code == 2 and "did you mean symmetric" in done.output
    done = bench("noise", "describe", "digits", "symmetric@1.5")
    assert done.exit_code == 2 and "out of range" in done.output
    done = bench("noise", "describe", "digits", "uniform-flip@0.3")
    assert done.exit_code == 2 and "10 classes, not two" in done.output
    done = bench("noise", "export", "digits", "longtail@0.5", "--format", "npy")
    assert done.exit_code == 2 and "leaves samples out" in done.output
