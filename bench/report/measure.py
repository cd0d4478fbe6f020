"""A layout filled from records: means and spreads with the reasons of what is absent, published numbers where asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from itertools import chain
from typing import Any

from bench.report import captions
from bench.report.aggregate import Aggregate, Block, Outcome, TableData, aggregate_cell, summarize
from bench.report.blueprint import VALUES, Column, Layout, Row, SubRow, cell_keys, matches
from bench.report.fill import DASH, Filled, build_part, csv_lines, published_number, quoted_cell, stars
from bench.report.filling import check_labels
from bench.report.layout import NO_VALUE, Cell, Sheet, cell_of, mixed_data_note, percent
from bench.report.spec import Filling, TableSpec

NOT_AVERAGED = "an average needs all its columns"
UNPLANNED = "not in the suite"


def measured_sheet(data: TableData, spec: TableSpec) -> Sheet:
    """The table of a suite in the layout of `spec.filling`. Raises `SpecError` where it names what the suite lacks."""
    from bench.report.measure_notes import Notes

    measured = Measured(data, spec)
    notes = Notes(measured)
    built = [build_part(measured.layout, section, measured.cell, notes.label, False) for section in measured.sections]
    grid = notes.grid([part for part, _ in built])
    return Sheet(data.suite, data.title, [grid], lambda: csv_lines(chain.from_iterable(records for _, records in built)))


def _base(label: str) -> str:
    """A label without the conventions behind it: 'symmetric@0.2 (own_class=False)' is 'symmetric@0.2'."""
    return label.partition(" (")[0]


class Measured:
    """What filling a layout from records needs at every cell; collects the footnotes in order of appearance."""

    def __init__(self, data: TableData, spec: TableSpec) -> None:
        assert spec.filling is not None
        self.data, self.spec = data, spec
        self.filling: Filling = spec.filling
        self.layout: Layout = spec.filling.layout
        self.outcomes: dict[tuple[str, str, str], tuple[Outcome, ...]] = {}
        for outcome in (o for block in data.blocks for group in block.outcomes.values() for o in group):
            at = (outcome.entry["dataset"], outcome.entry["noise"], outcome.entry["method"])
            self.outcomes[at] = (*self.outcomes.get(at, ()), outcome)
        self.methods = list(dict.fromkeys(method for *_, method in self.outcomes))
        self.numbers: dict[str, str] = {}
        self.compared = False  # whether any difference is printed
        check_labels(self.filling, [outcome.entry for group in self.outcomes.values() for outcome in group])
        self.sections = [replace(s, rows=tuple(map(self._titled, s.rows))) for s in self.layout.sections]

    def _titled(self, row: Row) -> Row:
        method = self.method_of(row)
        return row if row.titled or method is None else replace(row, labels=(self.data.methods[method].label,))

    # -- which cells of the suite ----------------------------------------------------------------------------------
    def method_of(self, row: Row) -> str | None:
        """The suite's method of a row: as the suite says, else one labelled like the row, else the only one of that slug."""
        if row.name in self.filling.rows:
            return self.filling.rows[row.name]
        slug = row.keys.get("method", row.name)
        if row.name in self.methods or row.name != slug:
            return row.name if row.name in self.methods else None
        taken = set(self.filling.rows.values()) | set(self.layout.row_names())
        labels = [label for label in self.methods if label not in taken and self._slugs.get(label) == slug]
        return labels[0] if len(labels) == 1 else None

    @cached_property
    def _slugs(self) -> dict[str, str]:
        """The method of each label, as far as records tell it."""
        found = {}
        for (_, _, label), outcomes in self.outcomes.items():
            for outcome in outcomes:
                name = (((outcome.record or {}).get("cell") or {}).get("method") or {}).get("name")
                if name:
                    found[label] = str(name)
        return found

    def taken(self, keys: dict[str, str], column: Column) -> dict[str, Any]:
        """Data set, noise and value of a column in the suite; whether the data set is the layout's own; what is not, as text."""
        rule = next((take for match, take in self.filling.columns if matches(match, keys)), {})
        usual = column.take.get("dataset", keys["dataset"])
        dataset = rule.get("dataset", usual)
        own_noise = column.take.get("noise") or self._noise(dataset, keys)
        noise = rule.get("noise", own_noise)
        own = _base(dataset) == _base(usual)
        swapped = f"{dataset}, {noise}" if noise != own_noise else "" if own else dataset
        return {"dataset": dataset, "noise": noise, "value": rule.get("value", column.value), "own": own, "swapped": swapped}

    def _noise(self, dataset: str, keys: dict[str, str]) -> str:
        """The suite's label for a noise: kind@rate, for the kinds that stand for it in the order of the layout."""
        there = [noise for data, noise, _ in self.outcomes if data == dataset]
        for kind in (*self.layout.noises.get(keys["noise"], ()), keys["noise"]):
            plain = f"{kind}@{keys['rate']}" if keys["rate"] and kind != "none" else kind
            for wanted in (plain, kind):  # a noise of one rate alone, as from a file, may be called by its kind
                found = next((label for label in there if wanted in (label, _base(label))), None)
                if found is not None:
                    return found
        return f"{keys['noise']}@{keys['rate']}" if keys["rate"] else keys["noise"]

    def value_of(self, metric: str, own: tuple[str, str] | None) -> tuple[str, str]:
        """Metric and protocol of records for a metric of the layout."""
        name, protocol = own or self.filling.values.get(metric) or self.layout.values.get(metric) or VALUES[metric]
        return name, self.filling.protocol or protocol

    # -- cells -----------------------------------------------------------------------------------------------------
    def cell(self, row: Row, sub: SubRow, column: Column) -> Filled:
        """One cell; of a method that the suite does not have, the published number."""
        method = self.method_of(row)
        if method is None:
            found = quoted_cell(self.layout, row, sub, column)
            found.number = None
            found.cell.quoted = found.cell.is_number
            if not self.layout.paper:
                found.cell = Cell(NO_VALUE, marks=self._number([UNPLANNED]), is_number=False)
            return found
        if column.average:
            return self._average(row, sub, column, method)
        keys = cell_keys(row, sub, column)
        taken = self.taken(keys, column)
        outcomes = self.outcomes.get((taken["dataset"], taken["noise"], method), ())
        published = published_number(self.layout, keys)
        value = self.value_of(keys["metric"], taken["value"])
        item = aggregate_cell(outcomes, *value)
        if not outcomes and self.layout.paper and published is None:
            return Filled(Cell(DASH, is_number=False), keys, lines=[{**keys, "status": "absent"}])
        cell = self._printed(item, outcomes)
        lines = [self._line(keys, item, taken, method)]
        if column.beside:
            second = aggregate_cell(outcomes, *self.value_of(column.beside, column.beside_value))
            if second.mean is not None:
                cell.after = f"({percent(second.mean, self.spec.digits)}{self._spread(second)})"
            lines.append(self._line({**keys, "metric": column.beside}, second, taken, method))
        if self.filling.published and published is not None:
            mean = item.mean if self._comparable(taken, outcomes) else None
            self._compare(cell, lines[0], published.value, mean, [*stars(self.layout, keys), *row.published_marks])
        return Filled(cell, keys, self._competes(item), lines)

    def _printed(self, item: Aggregate, outcomes: Iterable[Outcome]) -> Cell:
        texts = list(item.reasons)
        if item.n and captions.data_note(self.block) is None:
            texts += mixed_data_note(outcomes)
        return cell_of(item, self.block.common_n, self.spec, texts, self.numbers)

    def _spread(self, item: Aggregate) -> str:
        shown = item.spread is not None and self.spec.spread != "none"
        return f" ± {percent(item.spread or 0.0, self.spec.digits)}" if shown else ""

    def _competes(self, item: Aggregate) -> float | None:
        return float(percent(item.mean, self.spec.digits)) if item.status == "done" and item.mean is not None else None

    def _comparable(self, taken: Mapping[str, Any], outcomes: Iterable[Outcome]) -> bool:
        """Whether cells are of the paper's data set, all of its training images, and its noise."""
        records = [outcome.record for outcome in outcomes if outcome.record]
        return not taken["swapped"] and not any(captions.non_canonical(record) or captions.in_part(record) for record in records)

    def _compare(self, cell: Cell, line: dict[str, object], printed: str, mean: float | None, marks: Iterable[str]) -> None:
        """Print the published number behind the measured one, with the difference in points where `mean` is given."""
        cell.note = "".join([printed or "not converged", *marks])
        line["published"] = printed
        if mean is not None and printed:
            self.compared = True
            decimals = min(self.spec.digits, max(0, -int(Decimal(printed).as_tuple().exponent)))
            difference = Decimal(percent(mean, self.spec.digits)) - Decimal(printed)
            line["difference"] = f"{difference:+.{decimals}f}"
            cell.note += f", {line['difference']}".replace("-", "−")

    def _average(self, row: Row, sub: SubRow, column: Column, method: str) -> Filled:
        """The mean of other columns of the line: for each seed where all have the same seeds, else of their means."""
        keys = cell_keys(row, sub, column)
        section = next(section for section in self.layout.sections if column in section.columns)
        parts = []
        comparable = True
        for index in column.of:
            at = cell_keys(row, sub, section.columns[index])
            taken = self.taken(at, section.columns[index])
            outcomes = self.outcomes.get((taken["dataset"], taken["noise"], method), ())
            parts.append((outcomes, self.value_of(at["metric"], taken["value"])))
            comparable &= self._comparable(taken, outcomes)
        items = [aggregate_cell(outcomes, *value) for outcomes, value in parts]
        line: dict[str, object] = {**keys, "source": "measured", "suite_method": method}
        if any(item.status != "done" for item in items):
            line |= {"status": "absent", "reason": NOT_AVERAGED}
            found = Filled(Cell(NO_VALUE, marks=self._number([NOT_AVERAGED]), is_number=False), keys, lines=[line])
            mean = None
        else:
            mean, spread = self._mean(column.average, items, parts)
            item = replace(items[0], mean=mean, spread=spread, reasons=())
            found = Filled(cell_of(item, item.n, self.spec, [], self.numbers), keys, self._competes(item), [line])
            line |= {"status": "done", "value": repr(mean), "spread": "" if spread is None else repr(spread), "unit": "fraction"}
        published = published_number(self.layout, keys)
        if self.filling.published and published is not None:
            self._compare(found.cell, line, published.value, mean if comparable else None, row.published_marks)
        return found

    def _mean(self, kind: str, items: Sequence[Aggregate], parts: Sequence[Any]) -> tuple[float, float | None]:
        if kind == "rounded":
            return sum(float(percent(item.mean or 0.0, self.spec.digits)) for item in items) / len(items) / 100, None
        by_seed: dict[Any, list[float]] = {}
        for outcomes, (metric, protocol) in parts:
            for outcome in outcomes:
                by_seed.setdefault(outcome.entry["seed"], []).append(outcome.record["metrics"][f"{metric}_{protocol}"])
        if {len(values) for values in by_seed.values()} == {len(parts)}:
            mean, spread = summarize([summarize(values)[0] or 0.0 for values in by_seed.values()])
            return mean or 0.0, spread
        return summarize([item.mean or 0.0 for item in items])[0] or 0.0, None

    def _line(self, keys: dict[str, str], item: Aggregate, taken: dict[str, Any], method: str) -> dict[str, object]:
        texts = ["" if value is None else repr(value) for value in (item.mean, item.spread)]
        return {
            **keys, "source": "measured", "value": texts[0], "spread": texts[1], "n": item.n, "n_planned": item.n_planned,
            "status": item.status, "unit": "fraction", "suite_dataset": taken["dataset"], "suite_noise": taken["noise"],
            "suite_method": method, "suite_metric": item.metric, "protocol": item.protocol, "reason": "; ".join(item.reasons),
        }  # fmt: skip

    def _number(self, texts: Iterable[str]) -> list[str]:
        return [self.numbers.setdefault(text, str(len(self.numbers) + 1)) for text in texts]

    # -- what the whole table shows ----------------------------------------------------------------------------------
    @cached_property
    def cells(self) -> list[tuple[Row, SubRow, Column, str]]:
        """The cells that records fill, with their methods."""
        return [
            (row, sub, column, method)
            for section in self.layout.sections for row in section.rows for method in [self.method_of(row)] if method is not None
            for sub in self.layout.sub_rows for column in section.columns if not column.average
        ]  # fmt: skip

    @cached_property
    def block(self) -> Block:
        """The cells of the suite that the table shows, as captions read them; the keys of its mappings mean nothing."""
        outcomes: dict[tuple[str, str], tuple[Outcome, ...]] = {}
        for row, sub, column, method in self.cells:
            taken = self.taken(cell_keys(row, sub, column), column)
            at = (taken["dataset"], taken["noise"], method)
            outcomes[method, f"{at[0]}/{at[1]}"] = self.outcomes.get(at, ())
        return Block("", (), (), {}, {at: group for at, group in outcomes.items() if group}, {})
