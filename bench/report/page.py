"""HTML: one self-contained page with a table for each block; no scripts, no requests to other hosts."""

from __future__ import annotations

from bench.report.aggregate import TableData
from bench.report.escape import web
from bench.report.layout import Cell, Grid, build_grids, caption_text
from bench.report.spec import TableSpec

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


def render_html(data: TableData, spec: TableSpec) -> str:
    title = web(data.title)
    body = "\n".join(_section(grid, spec) for grid in build_grids(data, spec))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(grid: Grid, spec: TableSpec) -> str:
    notes = [f"<li>{_marks([mark])} {web(text)}</li>" for mark, text in grid.footnotes]
    for label, text in grid.noise:
        notes.append(f"<li>{web(text)}</li>" if not label else f"<li><code>{web(label)}</code>: {web(text)}</li>")
    lines = [
        "<section>",
        f"<h2>{web(grid.heading)}{_marks(grid.heading_marks)}</h2>",
        '<div class="scroll">',
        *_table(grid),
        "</div>",
        f'<p class="caption">{web(caption_text(grid, spec))}</p>',
        '<ul class="notes">',
        *notes,
        "</ul>",
        "</section>",
    ]
    return "\n".join(lines)


def _table(grid: Grid) -> list[str]:
    lines = ["<table>", "<thead>", *_header(grid), "</thead>"]
    for index, line in enumerate(grid.lines):
        if line.height:
            lines += ["</tbody>"] * (index > 0) + ["<tbody>"]
            rowspan = f' rowspan="{line.height}"' if line.height > 1 else ""
            name = f'<th scope="rowgroup"{rowspan}>{web(line.label)}{_marks(line.marks)}</th>'
        else:
            name = ""
        cells = "".join(_cell(cell) for group in line.groups for cell in group)
        lines.append(f'<tr>{name}<th scope="row">{web(line.sub_label)}</th>{cells}</tr>')
    return [*lines, "</tbody>", "</table>"]


def _header(grid: Grid) -> list[str]:
    depth = 1 if grid.single_header else 2
    rowspan = f' rowspan="{depth}"' if depth > 1 else ""
    stub = "".join(f'<th scope="col"{rowspan}>{web(text)}</th>' for text in grid.stub)
    scope = "col" if grid.single_header else "colgroup"
    upper = "".join(
        f'<th scope="{scope}"{_colspan(len(subs))}>{web(label)}{_marks(marks)}</th>'
        for label, marks, subs in grid.groups
    )
    lower = "".join(f'<th scope="col">{web(sub)}</th>' for _, _, subs in grid.groups for sub in subs)
    return [f"<tr>{stub}{upper}</tr>"] + ([] if grid.single_header else [f"<tr>{lower}</tr>"])


def _cell(cell: Cell) -> str:
    value = web(cell.value)
    value = {"best": f"<b>{value}</b>", "second": f"<u>{value}</u>"}.get(cell.rank, value)
    tail = (f" ± {cell.spread}" if cell.spread else "") + (f" ({web(cell.n)})" if cell.n else "")
    value += f'<span class="spread">{tail}</span>' if tail else ""
    kind = "" if cell.is_number else ' class="none"'
    return f"<td{kind}{_colspan(cell.span)}>{value}{_marks(cell.marks)}</td>"


def _marks(marks: list[str]) -> str:
    return f"<sup>{web(','.join(marks))}</sup>" if marks else ""


def _colspan(size: int) -> str:
    return f' colspan="{size}"' if size > 1 else ""
