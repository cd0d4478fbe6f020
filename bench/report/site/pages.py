"""From suites to files: the templates filled in. Every value is cleaned and escaped on its way into a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.needs import NEEDS
from bench.report.aggregate import summarize
from bench.report.escape import clean
from bench.report.site import SiteSuite
from bench.report.site.cells import cell_view
from bench.report.site.charts import number
from bench.report.site.names import file_name
from bench.report.site.rows import STATES, MethodUse, Row, SuiteView, columns_of, entry_of, suite_view

HERE = Path(__file__).parent
STATIC = ("site.css", "site.js")


@dataclass(frozen=True)
class MethodView:
    slug: str
    page: str
    title: str
    needs: list[tuple[str, str]]
    networks: int
    views: list[SuiteView]
    rows: list[Row]
    costs: list[tuple[str, str, str, str, str, str, int]]


def files(suites: Sequence[SiteSuite], title: str) -> Iterator[tuple[str, bytes]]:
    """See `bench.report.site.site_files`."""
    environment = _environment()

    def page(path: str, template: str, **values: Any) -> tuple[str, bytes]:
        text = environment.get_template(template).render(site=title, root="../" * path.count("/"), STATES=STATES, **values)
        return path, text.encode("utf-8", "replace")

    views = [suite_view(suite) for suite in suites]
    methods = _methods(suites, views)
    yield from ((name, (HERE / "static" / name).read_bytes()) for name in STATIC)
    yield page("index.html", "index.html", views=views, methods=methods)
    for method in methods:
        yield page(f"methods/{method.page}", "method.html", method=method, columns=columns_of(method.views))
    for suite, view in zip(suites, views, strict=True):
        yield page(f"{view.folder}/index.html", "suite.html", view=view, figures=_figures(suite))
        yield from ((f"{view.folder}/figures/{file}", suite.figures[name]) for name, file in _figures(suite))
        for key in suite.records:
            yield page(f"{view.folder}/{file_name(key)}.html", "cell.html", **_cell(suite, view, key))
            if key in suite.raw:
                yield f"{view.folder}/{file_name(key)}.json", suite.raw[key]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"lines": _lines, "file_name": file_name}
    return environment


def _printable(value: Any) -> Any:
    """One line without control and direction characters; what is markup already stays (autoescape does the rest)."""
    return value if isinstance(value, Markup) else clean(value)


def _lines(text: str) -> Markup:
    """Several lines, each cleaned; for tracebacks, whose indentation means something."""
    kept = ("".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines())
    return Markup("\n".join(str(escape(line)) for line in kept))


def _figures(suite: SiteSuite) -> list[tuple[str, str]]:
    """(name, file name in the site) of the suite's figures."""
    return [(name, f"{file_name(name.removesuffix('.svg'))}.svg") for name in sorted(suite.figures)]


def _cell(suite: SiteSuite, view: SuiteView, key: str) -> dict[str, Any]:
    record = suite.records[key]
    entry = view.entries.get(key) or entry_of(record)
    seeds = view.seeds[entry["dataset"], entry["noise"], entry["method"]] if key in view.entries else []
    return {
        "suite": view, "key": key, "entry": entry, "planned": key in view.entries, "cell": cell_view(record),
        "seeds": [(e["seed"], f"{file_name(e['id'])}.html" if e["id"] in suite.records else "", e["id"] == key) for e in seeds],
        "method_page": f"{file_name(_slug(view, entry))}.html" if key in view.entries else "",
        "command": suite.commands.get(key, ""), "raw": f"{file_name(key)}.json" if key in suite.raw else "",
    }  # fmt: skip


def _slug(view: SuiteView, entry: Mapping[str, Any]) -> str:
    return view.methods[entry["method"]].slug


# -- methods -----------------------------------------------------------------------------------------------------------
def _methods(suites: Sequence[SiteSuite], views: Sequence[SuiteView]) -> list[MethodView]:
    """Every method that a plan names, by slug, with its rows of all suites."""
    uses: dict[str, list[MethodUse]] = {}
    for use in (use for view in views for use in view.methods.values()):
        uses.setdefault(use.slug, []).append(use)
    return [_method(slug, uses[slug], suites, views) for slug in sorted(uses)]


def _method(slug: str, uses: Sequence[MethodUse], suites: Sequence[SiteSuite], views: Sequence[SuiteView]) -> MethodView:
    page = f"{file_name(slug)}.html"
    needs = dict.fromkeys(need for use in uses for need in use.needs)
    own = [view for view in views if any(use.slug == slug for use in view.methods.values())]
    return MethodView(
        slug=slug,
        page=page,
        title=_title(slug, uses),
        needs=[(need, NEEDS.get(need) or f"uses {need}") for need in needs],
        networks=max(use.networks for use in uses),
        views=own,
        rows=[row for view in own for row in view.rows if row.method_page == page],
        costs=[cost for suite, view in zip(suites, views, strict=True) for cost in _costs(slug, suite, view)],
    )


def _title(slug: str, uses: Sequence[MethodUse]) -> str:
    """Of the plain method where a suite has it, else of its first variant, without the variant's settings."""
    plain = [use.title for use in uses if use.label == slug]
    return plain[0] if plain else uses[0].title.partition(" (")[0]


def _costs(slug: str, suite: SiteSuite, view: SuiteView) -> Iterator[tuple[str, str, str, str, str, str, int]]:
    """Suite, data set and means over its finished records: seconds, images per second, passes per image and epoch."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for key, entry in view.entries.items():
        record = suite.records.get(key)
        if record is not None and record["status"] == "done" and _slug(view, entry) == slug:
            groups.setdefault(entry["dataset"], []).append(record)
    for dataset, records in groups.items():
        seconds = _mean([_at(r, "cost", "train_seconds") for r in records])
        speed = _mean([_at(r, "cost", "images_per_second") for r in records])
        forward = _mean([_per_image(r, "forward_images") for r in records])
        backward = _mean([_per_image(r, "backward_images") for r in records])
        yield view.name, dataset, _short(seconds), _short(speed), _short(forward), _short(backward), len(records)


def _per_image(record: Mapping[str, Any], key: str) -> float | None:
    images, size = _at(record, "cost", key), _at(record, "data", "n_train")
    epochs = len((record.get("curve") or {}).get("epoch") or ())
    return None if images is None or not size or not epochs else images / (size * epochs)


def _at(record: Mapping[str, Any], block: str, key: str) -> float | None:
    return number((record.get(block) or {}).get(key))


def _mean(values: Sequence[float | None]) -> float | None:
    return summarize([value for value in values if value is not None])[0]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
