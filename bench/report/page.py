"""HTML: one self-contained page with a table for each block; no scripts, no requests to other hosts."""

from __future__ import annotations

from bench.report.escape import web
from bench.report.layout import Cell, Grid, Label, Part, Sheet, caption_text

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
html { color: #111; background: #fff }
.scroll { overflow-x: auto }
table { border-collapse: collapse; border-block: 2px solid #111; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: center; white-space: nowrap; font-weight: normal }
thead th { border-bottom: 1px solid #888; font-weight: 600 }
tbody th { text-align: left; vertical-align: top }
tbody tr:first-child > * { border-top: 1px solid #ccc }
td b { font-weight: 700 }
td.none { color: #666 }
.spread { color: #555; font-size: .85em }
.caption, .notes { max-width: 60rem; font-size: .9rem }
.notes { list-style: none; padding: 0 }
""".strip()
# Added where a table has what the others lack, so that pages without it keep their bytes.
LAYOUT_STYLE = """
thead tr:not(:last-child) th { border-bottom: 0 }
thead tr:not(:last-child) th[colspan] { border-bottom: 1px solid #bbb }
thead th[rowspan] { border-bottom: 1px solid #888; vertical-align: bottom }
thead th:first-child { text-align: left }
sub, sup { line-height: 0 }
tbody.rule tr:first-child > * { border-top: 1px solid #111 }
table + table, h3 + table { margin-top: 1rem }
td i { color: #555 }
.published { color: #555; font-size: .85em }
sub { color: #555; font-size: .7em }
""".strip()


def render_html(sheet: Sheet) -> str:
    title = web(sheet.title)
    body = "\n".join(_section(grid) for grid in sheet.grids)
    style = f"{STYLE}\n{LAYOUT_STYLE}" if any(not grid.heading for grid in sheet.grids) else STYLE
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(grid: Grid) -> str:
    notes = [f"<li>{_marks([mark])} {web(text)}</li>" for mark, text in grid.footnotes]
    for label, text in grid.noise:
        notes.append(f"<li>{web(text)}</li>" if not label else f"<li><code>{web(label)}</code>: {web(text)}</li>")
    lines = [
        "<section>",
        *([f"<h2>{web(grid.heading)}{_marks(grid.heading_marks)}</h2>"] if grid.heading or grid.heading_marks else []),
        '<div class="scroll">',
        *(text for part in grid.parts for text in _table(part)),
        "</div>",
        f'<p class="caption">{web(caption_text(grid))}</p>',
        *(['<ul class="notes">', *notes, "</ul>"] if notes else []),
        "</section>",
    ]
    return "\n".join(lines)


def _table(part: Part) -> list[str]:
    lines = [f"<h3>{web(part.heading)}</h3>"] if part.heading else []
    lines += ["<table>", "<thead>", *_header(part), "</thead>"]
    for index, line in enumerate(part.lines):
        if line.above or not index:
            lines += ["</tbody>"] * (index > 0) + ['<tbody class="rule">' if line.above == "rule" else "<tbody>"]
        last = len(line.labels) - 1
        names = "".join(_label(label, "row" if i == last else "rowgroup") for i, label in enumerate(line.labels))
        lines.append(f"<tr>{names}{''.join(_cell(cell) for cell in line.cells)}</tr>")
    return [*lines, "</tbody>", "</table>"]


def _label(label: Label, scope: str) -> str:
    if not label.height:
        return ""
    if isinstance(label.text, bool):
        return f"<td>{'✓' * label.text}{_marks(label.marks)}</td>"
    rowspan = f' rowspan="{label.height}"' if label.height > 1 else ""
    venue = f" <sub>{web(label.subscript)}</sub>" if label.subscript else ""
    return f'<th scope="{scope}"{rowspan}>{web(label.text)}{venue}{_marks(label.marks)}</th>'


def _header(part: Part) -> list[str]:
    """The header rows. Label heads that stand in the last row alone reach down to it from the first."""
    lines = []
    rows = part.shown
    alone = not any(text for texts, _ in rows[:-1] for text in texts)
    rowspan = f' rowspan="{len(rows)}"' if len(rows) > 1 and alone else ""
    for index, (texts, heads) in enumerate(rows):
        scope = "col" if index == len(rows) - 1 else "colgroup"
        own = rows[-1][0] if alone else texts
        stub = "" if alone and index else "".join(f'<th scope="col"{rowspan}>{web(text)}</th>' for text in own)
        cells = "".join(f'<th scope="{scope}"{_colspan(h.span)}>{web(h.text)}{_marks(h.marks)}</th>' for h in heads)
        lines.append(f"<tr>{stub}{cells}</tr>")
    return lines


def _cell(cell: Cell) -> str:
    value = f"<i>{web(cell.value)}</i>" if cell.quoted else web(cell.value)
    value = {"best": f"<b>{value}</b>", "second": f"<u>{value}</u>"}.get(cell.rank, value)
    tail = (f" ± {cell.spread}" if cell.spread else "") + (f" ({web(cell.n)})" if cell.n else "")
    value += f'<span class="spread">{tail}</span>' if tail else ""
    value += f" {web(cell.after)}" if cell.after else ""
    value += f' <span class="published">({web(cell.note)})</span>' if cell.note else ""
    kind = "" if cell.is_number else ' class="none"'
    return f"<td{kind}{_colspan(cell.span)}>{value}{_marks(cell.marks)}</td>"


def _marks(marks: list[str]) -> str:
    return f"<sup>{web(','.join(marks))}</sup>" if marks else ""


def _colspan(size: int) -> str:
    return f' colspan="{size}"' if size > 1 else ""
