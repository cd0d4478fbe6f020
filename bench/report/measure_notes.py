"""The words around a layout that records fill: marks and footnotes of rows and columns, and the caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.report import captions
from bench.report.blueprint import Column, Row, Section, cell_keys
from bench.report.layout import UNMEASURED, UNMEASURED_NOTE, Cell, Grid, Part
from bench.report.measure import Measured
from bench.report.papers import emphasis, source
from bench.report.spec import METRICS, PROTOCOLS


class Notes:
    """Words about `table`. letters: the text of each footnote about a row or a column -> its mark."""

    def __init__(self, table: Measured) -> None:
        self.table, self.layout = table, table.layout
        shown = list(dict.fromkeys(method for *_, method in table.cells))
        self.by_method, notes = captions.method_notes(table.data, shown)
        self.letters = {text: mark for mark, text in notes}
        self.rows = [row for section in self.layout.sections for row in section.rows]

    def label(self, row: Row) -> tuple[list[str], list[str]]:
        """Marks of a row: those of its layout; those of needs, networks, its note, and of numbers not measured here."""
        method = self.table.method_of(row)
        texts = [row.note] if row.note else []
        marks = list(row.marks)
        if method is None and self.layout.paper:
            texts.append(f"published number ({source(self.layout, short=True)}), not run here")
            marks += row.published_marks
        return marks, self.by_method.get(method or "", []) + [self._letter(text) for text in texts]

    def _letter(self, text: str) -> str:
        return self.letters.setdefault(text, captions.letter(len(self.letters)))

    def grid(self, parts: list[Part]) -> Grid:
        """The table with its notes; `parts` have the marks of `label`."""
        for section, part in zip(self.layout.sections, parts, strict=True):
            self._mark_heads(section, part)
        block = self.table.block
        stars = self.layout.footnotes.items()
        lines = [line for part in parts for line in part.lines]
        used = {mark for line in lines for label in line.labels for mark in label.marks}
        used |= {mark for line in lines for cell in line.cells for mark in cell.marks}
        if self.table.filling.published:
            used |= {mark for mark, _ in self.layout.starred} | {mark for row in self.rows for mark in row.published_marks}
        footnotes = [(mark, text) for mark, text in stars if mark in used]
        footnotes += [(mark, text) for text, mark in self.letters.items()]
        note = captions.data_note(block)
        footnotes += [(captions.NON_CANONICAL_MARK, note)] if note else []
        footnotes += [(mark, text) for text, mark in self.table.numbers.items()]
        cells = [cell for line in lines for cell in line.cells]
        footnotes += [(UNMEASURED, UNMEASURED_NOTE)] if any(cell.value == UNMEASURED for cell in cells) else []
        return Grid(
            key="", heading="", heading_marks=[captions.NON_CANONICAL_MARK] if note else [], parts=parts,
            caption=self._caption(cells), emphasis=self._emphasis(), conditions=captions.conditions(block), footnotes=footnotes,
            noise=captions.noise_notes(block),
        )  # fmt: skip

    def _mark_heads(self, section: Section, part: Part) -> None:
        """A mark on the widest heads whose columns all come from one other data set or noise than the layout says."""
        texts = [self._swapped(section, column) for column in section.columns]
        open_columns = set(range(len(texts)))
        for heads in part.heads:
            start = 0
            for head in heads:
                under = range(start, start + head.span)
                own = {texts[i] for i in under} - {None}
                if len(own) == 1 and "" not in own and head.text and open_columns >= set(under):
                    head.marks = [self._letter(f"run on {own.pop()}")]
                    open_columns -= set(under)
                start += head.span

    def _swapped(self, section: Section, column: Column) -> str | None:
        """What a column is measured on instead, '' where the layout's own, None where nothing says it."""
        cells = [(row, sub) for row, sub, other, _ in self.table.cells if other is column]
        found = dict.fromkeys(self.table.taken(cell_keys(row, sub, column), column)["swapped"] for row, sub in cells)
        return "; ".join(filter(None, found)) if found else None

    def _emphasis(self) -> str:
        text = emphasis(self.layout)
        quoted = self.layout.paper and any(self.table.method_of(row) is None for row in self.rows)
        others = " and published numbers" if quoted else ""
        return f"{text[:-1]}; values with seeds absent{others} do not compete." if text else ""

    def _caption(self, cells: Sequence[Cell]) -> list[list[str]]:
        """Statistic; what each metric is and under which protocol; averages; published numbers."""
        block = self.table.block
        statistic = [captions.statistic(block, self.table.spec)] if block.outcomes else []
        return [statistic, self._values(), self._averages(), self._published(cells)]

    def _values(self) -> list[str]:
        values: dict[tuple[str, str], list[str]] = {}
        for name, value in self._named():
            names = values.setdefault(value, [])
            names += [name] if name and name not in names else []
        k, val = captions.last_k(self.table.block), captions.validation(self.table.block)
        texts = []
        for (metric, protocol), names in values.items():
            meaning = f"{METRICS[metric].meaning}, {PROTOCOLS[protocol].meaning.format(k=k, val=val)}."
            text = f"{', '.join(names)}: {meaning}" if names else meaning
            texts.append(f"{text[0].upper()}{text[1:]}")
        return texts

    def _named(self) -> Iterable[tuple[str, tuple[str, str]]]:
        """Each value with what the table calls it: its sub-row or the head of its column, with the heads above where values share
        that; '' where there is one value. The numbers in parentheses have names of their own."""
        main: list[tuple[str, str, tuple[str, str]]] = []
        beside: list[tuple[str, str, tuple[str, str]]] = []
        for row, sub, column, _ in self.table.cells:
            keys = cell_keys(row, sub, column)
            heads = [column.path[-1][1], *([sub.label] if "metric" in sub.keys else [])]
            names = heads[-1], " ".join(filter(None, [*(text for _, text in column.path[:-1]), *heads]))
            main.append((*names, self.table.value_of(keys["metric"], self.table.taken(keys, column)["value"])))
            if column.beside:
                beside.append((*names, self.table.value_of(column.beside, column.beside_value)))
        for found, suffix in ((main, ""), (beside, " in parentheses")):
            several = len({value for *_, value in found}) > 1
            sharing = {short: len({value for name, _, value in found if name == short}) > 1 for short, *_ in found}
            for short, whole, value in found:
                name = (whole if sharing[short] else short) if several else ""
                yield f"{name}{suffix}".strip(), value

    def _averages(self) -> list[str]:
        how = {"rounded": "printed", "unrounded": "unrounded"}
        columns = [column for section in self.layout.sections for column in section.columns if column.average]
        found = {
            f"{column.path[-1][1]}: mean of the {how[column.average]} values of "
            f"{', '.join(column.named) or 'the columns to its left below the same head'}." for column in columns
        }  # fmt: skip
        return sorted(found)

    def _published(self, cells: Iterable[Cell]) -> list[str]:
        quoted = any(cell.quoted for cell in cells)
        beside = self.table.filling.published and bool(self.table.cells)
        taken = [self.table.taken(cell_keys(row, sub, column), column) for row, sub, column, _ in self.table.cells]
        texts = []
        if beside:
            difference = " and the difference in points, measured minus published" if self.table.compared else ""
            texts.append(f"In parentheses: the number of {source(self.layout)}{difference}.")
        others = (
            ("data sets", dict.fromkeys(item["dataset"] for item in taken if not item["own"])),
            ("noise", dict.fromkeys(item["noise"] for item in taken if item["own"] and item["swapped"])),
            ("training images", ["a part of them"] if any(map(captions.in_part, self.table.block.records)) else []),
        )
        for what, other in others:
            if other and (quoted or beside):
                texts.append(f"Published numbers are of the paper's {what}, not of {', '.join(other)}: not to be compared.")
        return texts
