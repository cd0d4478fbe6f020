"""Figures as files: every kind draws, the same bytes every time, foreign text as it stands, sections, the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from plot_records import suite

from bench.cli_figure import figure
from bench.report.plots import draw, kinds, module_of, spec, style
from bench.report.plots.source import Source
from bench.report.spec import SpecError

ROOT = Path(__file__).parents[1]


# -- drawing -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", kinds())
def test_every_kind_draws_the_same_bytes_twice(kind: str, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    plan, records = suite(noises=("flip@0.25",))
    wanted = [spec.FigureSpec(kind)]
    (first,) = draw(plan, records, wanted, tmp_path / "a")
    (second,) = draw(plan, dict(reversed(records.items())), wanted, tmp_path / "b")
    assert first.reason is None and [path.name for path in first.files] == [f"{kind}.png", f"{kind}.svg"]
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in second.files]
    assert first.files[0].read_bytes().startswith(b"\x89PNG") and b"dc:date" not in first.files[1].read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_pdf_on_request_and_numbered_files(tmp_path: Path) -> None:
    plan, records = suite(seeds=1, noises=("flip@0.25",))
    wanted = spec.validate([{"kind": "losses", "scale": "count"}, {"kind": "losses", "scale": "density"}])
    files = [path.name for item in draw(plan, records, wanted, tmp_path, ("pdf",)) for path in item.files]
    assert files == ["losses.pdf", "losses-2.pdf"] and b"CreationDate" not in (tmp_path / "losses.pdf").read_bytes()


def test_what_cannot_be_drawn_has_a_reason_and_no_file(tmp_path: Path) -> None:
    plan, records = suite(seeds=1)
    wanted = [spec.FigureSpec("gallery", {"methods": ("erm",)}), spec.FigureSpec("curves", {"methods": ("erm",)})]
    gallery, curves = draw(plan, records, wanted, tmp_path)
    assert not gallery.files and "watch: [gallery]" in str(gallery.reason)
    assert curves.reason is None and not list(tmp_path.glob("gallery*"))


def test_foreign_text_is_printed_as_it_stands(tmp_path: Path) -> None:
    plan, records = suite(seeds=1, noises=("flip@0.25",))
    for entry in plan["entries"]:
        entry["title"] = f"_{entry['title']} $x^2$\n<b>"
    for record in records.values():
        record["noise"]["classes"] = ["$a$", "_b", "c\n"]
        record["data"]["groups"] = ["a/1", "$g$", "b/1", "b/2"]
        if "watched" in record:
            record["watched"]["gallery"]["at"]["1"][0]["png"] = "bm8gcGljdHVyZQ=="
    drawn = draw(plan, records, spec.every(), tmp_path, ("png",))
    assert [item.kind for item in drawn if not item.files] == []


def test_the_bars_that_are_drawn_are_those_of_the_numbers() -> None:
    module = module_of("groups")
    plan, records = suite(noises=("flip@0.25",))
    (sheet,) = module.sheets(Source.of(plan, records), spec.FigureSpec("groups").filled())
    figure = module.draw(sheet)
    assert [axes.get_ylabel() for axes in figure.axes] == ["test accuracy (%)", "noise AUC (%)"]
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert len(heights) == 3 * 5 and sorted(heights)[0] == pytest.approx(55)
    assert "dotted: ERM" in figure.texts[0].get_text().replace("\n", " ")


def longest_titles() -> tuple[dict[str, Any], dict[str, Any]]:
    """A suite whose panels differ at the end of long names."""
    plan, records = suite(seeds=1, noises=("flip@0.25", "flip@0.5"))
    for entry in plan["entries"]:
        entry["dataset"] = "spurious-digits (correlation=0.9)"
        entry["noise"] = f"semantic {entry['noise']} (network=resnet8, share=0.25)"
        entry["title"] = f"{entry['title']} with a longer name than a panel is wide"
    return plan, records


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind != "gallery"])
def test_titles_are_whole_and_lie_above_their_own_panel_alone(kind: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    plan, records = longest_titles()
    found = spec.FigureSpec(kind, {"map": True, "fields": ("k", "tau")} if kind == "sensitivity" else {})
    with style.settings():
        for sheet in module_of(kind).sheets(Source.of(plan, records), found.filled()):
            figure = module_of(kind).draw(sheet)
            renderer = FigureCanvasAgg(figure).get_renderer()
            titles = [(axes, axes.get_title(loc="left")) for axes in figure.axes if axes.get_title(loc="left")]
            assert titles and "…" not in "".join(text for _, text in titles)
            boxes = {axes: axes._left_title.get_window_extent(renderer) for axes, _ in titles}
            for axes, box in boxes.items():
                assert box.y1 <= figure.bbox.y1
                for legend in figure.legends:
                    assert not box.overlaps(legend.get_window_extent(renderer))
                for other in figure.axes:
                    if other.get_position().y0 > axes.get_position().y1:
                        assert box.y1 <= other.get_tightbbox(renderer).y0 + 1


FOLDERS = sorted(path.parent for path in (ROOT / "results").glob("*/plan.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_two_committed_panels_of_one_metric_have_the_same_title(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    source = Source.of(plan, {})
    part = next(iter(source.parts()))  # the others show the same panels of other methods
    figure = module_of("curves").draw(module_of("curves").sheets(part, {})[0])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert len(set(titles)) == len(titles) == len(part.cells)


# -- the section of a suite --------------------------------------------------------------------------------------------
def test_a_section_names_kinds_or_sets_options() -> None:
    section = [
        "curves",
        {"kind": "sensitivity", "metric": "worst_group_acc", "base": {"k": 10}},
        {"kind": "counts", "epochs": [1, 5]},
    ]
    found = spec.validate(section)
    assert [item.kind for item in found] == ["curves", "sensitivity", "counts"]
    assert found[1].filled()["metric"] == ("worst_group_acc",) and found[1].filled()["protocol"] == "last"
    assert found[2].options == {"epochs": (1, 5)}
    assert spec.validate(None) == ()


@pytest.mark.parametrize(
    ("section", "path", "words"),
    [
        ("curves", ("figures",), "expected a list"),
        (["curve"], ("figures", 0, "kind"), "unknown kind of figure 'curve'; did you mean 'curves'? valid: confusion"),
        ([{"metric": "x"}], ("figures", 0), "a mapping with `kind:`"),
        (["curves", {"kind": "pareto", "cots": "seconds"}], ("figures", 1), "pareto has no option 'cots'; did you mean 'cost'"),
        ([{"kind": "pareto", "cost": "second"}], ("figures", 0, "cost"), "'second'; did you mean 'seconds'?"),
        ([{"kind": "counts", "epochs": [0]}], ("figures", 0, "epochs"), "different epochs, counted from 1"),
        ([{"kind": "counts", "epochs": [2, 2]}], ("figures", 0, "epochs"), "different epochs"),
        ([{"kind": "curves", "methods": [3]}], ("figures", 0, "methods"), "a list of different names"),
        ([{"kind": "gallery", "images": True}], ("figures", 0, "images"), "a whole number, 1 or more"),
        ([{"kind": "sensitivity", "map": "yes"}], ("figures", 0, "map"), "true or false"),
    ],
)  # fmt: skip
def test_faults_of_a_section(section: Any, path: tuple[Any, ...], words: str) -> None:
    with pytest.raises(SpecError) as error:
        spec.validate(section)
    assert error.value.path == path and words in error.value.message


def test_every_option_has_a_default_that_fits() -> None:
    for kind in kinds():
        assert module_of(kind).TITLE
        for name, option in spec.options_of(kind).items():
            if option.default is not None:
                spec.validate([{"kind": kind, name: option.default}])


def test_validation_loads_nothing_heavy() -> None:
    code = (
        "import sys; from bench.report.plots import spec, kinds; spec.validate(kinds());"
        "print(sorted({'matplotlib', 'numpy', 'torch', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "[]", done.stderr


# -- the command -------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite file with its plan and no records: the plan is current, so that nothing is imported to make one."""
    from bench.plan import PLAN_SCHEMA
    from bench.yaml_source import read

    monkeypatch.chdir(tmp_path)
    (tmp_path / "plots.yaml").write_text("datasets: digits\nnoises: none\nmethods: erm\n")
    plan, _ = suite(seeds=1, noises=("flip@0.25",))
    results = tmp_path / "results" / "plots"
    results.mkdir(parents=True)
    manifest = plan | {"schema": PLAN_SCHEMA, "sources": read(Path("plots.yaml")).relative_files()}
    (results / "plan.json").write_text(json.dumps(manifest))
    return tmp_path


def call(*words: str) -> Result:
    return CliRunner().invoke(figure, words)


def test_the_command_draws_what_it_can_and_says_what_it_left_out(folder: Path) -> None:
    result = call("plots.yaml", "--format", "svg")
    assert result.exit_code == 0
    assert [path.name for path in (folder / "results/plots").glob("*.svg")] == ["curves.svg"]
    assert "left out gallery: no finished record" in result.output and "bench run plots.yaml --force" in result.output


def test_the_command_fails_where_a_named_kind_cannot_be_drawn(folder: Path) -> None:
    result = call("plots.yaml", "sets", "--out", "elsewhere")
    assert result.exit_code == 1 and "error: left out sets: " in result.output and "watch: [confidence_set]" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plots.yaml", "curve"), "unknown kind of figure 'curve' (did you mean curves"),
        (("plots.yaml", "--format", "png,svq"), "unknown format 'svq' (did you mean svg?)"),
        ((), "Missing argument 'SUITE'"),
    ],
)
def test_faults_of_the_command(folder: Path, words: tuple[str, ...], said: str) -> None:
    result = call(*words)
    assert result.exit_code == 2 and said in result.output


def test_the_list_of_kinds() -> None:
    result = call("--list")
    assert result.exit_code == 0 and all(f"\n{kind} " in f"\n{result.output}" for kind in kinds())
