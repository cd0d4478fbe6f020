"""Pictures without a plotting library: SVG written by hand, tables with shaded cells, matrices as a pixel image.

All colours are classes of site.css, so that the pictures follow the reader's light or dark setting and print well.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from bench.report.escape import clean

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34
TABLE_CLASSES = 20  # larger matrices are drawn as pixels
SPARK_POINTS = 24

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Heat:
    """A matrix for the page: rows of (text, shade 0..9), or `image` (a data address) where it is too large for a table."""

    classes: list[str]
    rows: list[list[tuple[str, int]]]
    image: str = ""


def number(value: Any) -> float | None:
    """A finite number, or None for anything else that a record may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def points(curve: Mapping[str, Any], series: str, scale: float = 100.0) -> Points:
    """(epoch counted from 1, scaled value), without epochs that were not measured."""
    pairs = zip(_list(curve.get("epoch")), _list(curve.get(series)), strict=False)
    found = [(number(epoch), number(value)) for epoch, value in pairs]
    return [(epoch + 1, scale * value) for epoch, value in found if epoch is not None and value is not None]


def line_chart(series: Mapping[str, Points], label: str, unit: str, marks: Mapping[str, float | None] | None = None) -> Markup:
    """Lines over epochs with axes; `marks` are vertical lines at epochs. '' when there is nothing to draw."""
    series = {name: line for name, line in series.items() if line}
    if not series:
        return Markup("")
    ends = [x for line in series.values() for x, _ in line]
    x_ticks, y_ticks = _ticks(min(ends), max(ends), whole=True), _y_ticks([y for line in series.values() for _, y in line])
    x_low, x_high = min(ends), max(max(ends), min(ends) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(clean(label))}">']
    for y in y_ticks:
        _, v = at(x_low, y)
        parts.append(f'<path class="grid" d="M{LEFT} {v:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{v + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        h, _ = at(x, y_low)
        parts.append(f'<text x="{h:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">epoch</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 3}">{escape(clean(unit))}</text>')
    for name, epoch in (marks or {}).items():
        if epoch is not None and x_low <= epoch <= x_high:
            h, _ = at(epoch, y_low)
            parts.append(f'<path class="mark" d="M{h:.1f} {TOP}V{HEIGHT - BOTTOM}"><title>{escape(clean(name))}</title></path>')
    for index, (name, line) in enumerate(series.items()):
        path = _path([at(x, y) for x, y in line])
        parts.append(f'<path class="line c{index % 6}" d="{path}"><title>{escape(clean(name))}</title></path>')
    return Markup("".join([*parts, "</svg>"]))


def sparkline(line: Points, low: float, high: float, label: str) -> Markup:
    """A word-sized curve on the common scale `low` to `high`, cut off there; at most SPARK_POINTS epochs are drawn."""
    if len(line) < 2:
        return Markup("")
    step = (len(line) - 1) / min(SPARK_POINTS - 1, len(line) - 1)
    chosen = [line[round(i * step)] for i in range(min(SPARK_POINTS, len(line)))]
    first, last = chosen[0][0], chosen[-1][0]
    span = max(high - low, 1e-9)

    def at(x: float, y: float) -> tuple[float, float]:
        return 2 + 76 * (x - first) / max(last - first, 1e-9), 22 - 20 * (min(high, max(low, y)) - low) / span

    path = _path([at(x, y) for x, y in chosen], digits=0)
    name = escape(clean(label))
    return Markup(f'<svg class="spark" viewBox="0 0 80 24" role="img" aria-label="{name}"><path d="{path}"/></svg>')


def heat(matrix: Any, classes: Any, *, counts: bool = False) -> Heat | None:
    """Row-wise shares of a square matrix; with `counts`, the printed texts are the entries themselves. None if it is not
    a matrix of numbers."""
    values = _square(matrix)
    if values is None:
        return None
    names = _names(classes, len(values))
    totals = values.sum(1, keepdims=True) if counts else np.ones((len(values), 1))
    shares = np.divide(values, totals, out=np.zeros_like(values), where=totals > 0).clip(0, 1)
    if len(values) > TABLE_CLASSES:
        return Heat(names, [], _pixels(shares))
    rows = [
        [(f"{value:g}" if counts else _share(value), round(9 * share)) for value, share in zip(*pair, strict=True)]
        for pair in zip(values.tolist(), shares.tolist(), strict=True)
    ]
    return Heat(names, rows)


def largest(matrix: Any, classes: Any, count: int = 10) -> list[tuple[str, str, float]]:
    """The (true class, given class, value) of the largest entries off the diagonal; the first ones among equals."""
    values = _square(matrix)
    if values is None:
        return []
    names = _names(classes, len(values))
    off = np.where(np.eye(len(values), dtype=bool), 0.0, values)
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    places = [divmod(int(place), len(values)) for place in order]
    return [(names[i], names[j], float(off[i, j])) for i, j in places if off[i, j] > 0]


def _square(matrix: Any) -> NDArray[np.float64] | None:
    """The finite square matrix that a record may hold, [K, K]; None for anything else."""
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if values.ndim != 2 or not len(values) or values.shape[0] != values.shape[1] or not np.isfinite(values).all():
        return None
    return values


def _names(classes: Any, size: int) -> list[str]:
    names = [clean(name) for name in _list(classes)]
    return names if len(names) == size else [str(index) for index in range(size)]


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if 0 <= value < 0.995 else f"{value:.2g}"


def picture(text: Any) -> str:
    """The data address of a PNG given in base64, or '' when it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        return ""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(b"\x89PNG\r\n\x1a\n") else ""


def _pixels(shares: NDArray[np.float64]) -> str:
    """A grey PNG, one pixel an entry, black for 1; square roots make small shares visible."""
    size = len(shares)
    greys = np.zeros((size, size + 1), dtype=np.uint8)  # every line begins with its filter, 0 for none
    greys[:, 1:] = 255 - np.rint(255 * np.sqrt(shares))
    lines = greys.tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _path(places: Sequence[tuple[float, float]], digits: int = 1) -> str:
    words = [f"{x:.{digits}f} {y:.{digits}f}" for x, y in places]
    return f"M{'L'.join(words)}" if len(words) > 1 else f"M{words[0]}h.1"


def _y_ticks(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    ticks = _ticks(low, high)
    step = ticks[1] - ticks[0]
    if ticks[0] > low:
        ticks = [round(ticks[0] - step, 10), *ticks]
    return ticks if ticks[-1] >= high else [*ticks, round(ticks[-1] + step, 10)]


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About five round numbers between `low` and `high`, at least two."""
    raw = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    last = max(first + (0 if whole else 1), math.floor(high / step + 1e-9))
    return [round(index * step, 10) for index in range(first, last + 1)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
