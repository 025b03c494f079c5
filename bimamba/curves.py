"""Curves as inline SVG with values under the pointer: a chart is a few kilobytes of text.

A plotting library would add megabytes to each page, or a network address to load it from. Here a
curve carries its data as plain numbers, and `SCRIPT`, one for all charts of a page, reads them.
Without the script, and on paper, the chart and its last values are there all the same.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bimamba.formats import short
from bimamba.run_files import Point

# Units of the drawing, about pixels on a phone; the page scales a chart to its column.
_WIDTH, _HEIGHT = 400, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 392, 8, 196
# More points cannot be told apart on that width.
_MOST_POINTS = 400
# A stage has the same colour in every chart.
_STAGES = {"train": 0, "val": 1, "val_raw": 2, "test": 3}

STYLE = """
.chart svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.chart text { font-size: 13px; fill: var(--soft); }
.chart path { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart path.dot { stroke-width: 7; }
.chart path.rule { stroke: var(--line); stroke-width: 1; }
.chart .thin path { stroke-width: 1; opacity: .5; }
.chart .cursor { stroke: var(--soft); visibility: hidden; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); }
.c2 { stroke: var(--c2); stroke-dasharray: 7 5; } .c3 { stroke: var(--c3); stroke-dasharray: 2 5; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .3rem 0 0; padding: 0;
  list-style: none; font-size: .85rem; }
.legend svg { display: inline-block !important; width: 1.5rem !important; height: .5rem !important;
  margin-right: .35rem; }
.legend b { font-variant-numeric: tabular-nums; }
.where { margin: .1rem 0 0; color: var(--soft); font-size: .8rem; }
"""

# The values nearest to the pointer replace the last ones until it leaves.
SCRIPT = """
for (const chart of document.querySelectorAll('.chart')) {
  const svg = chart.querySelector('svg'), cursor = chart.querySelector('.cursor');
  const where = chart.querySelector('.where'), rest = where.textContent;
  const [low, high, left, right, width] = svg.dataset.axis.split(' ').map(Number);
  const cells = chart.querySelectorAll('.legend b');
  const curves = [...chart.querySelectorAll('[data-steps]')].map((curve, i) => ({
    steps: curve.dataset.steps.split(' ').map(Number),
    values: curve.dataset.values.split(' ').map(Number),
    cell: cells[i], last: cells[i].textContent,
  }));
  const nearest = (steps, wanted) => steps.reduce(
    (best, step, i) => Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? i : best, 0);
  const show = event => {
    const box = svg.getBoundingClientRect();
    const place = (event.clientX - box.left) / box.width * width;
    const wanted = low + (place - left) / (right - left) * (high - low);
    const steps = curves.map(curve => curve.steps[nearest(curve.steps, wanted)]);
    const step = steps[nearest(steps, wanted)];
    const x = left + (step - low) / (high - low) * (right - left);
    cursor.setAttribute('x1', x);
    cursor.setAttribute('x2', x);
    cursor.style.visibility = 'visible';
    where.textContent = 'values nearest to step ' + step.toLocaleString('en');
    for (const curve of curves) {
      const value = curve.values[nearest(curve.steps, step)];
      curve.cell.textContent = Number.isFinite(value) ? +value.toPrecision(4) : 'not finite';
    }
  };
  const hide = () => {
    cursor.style.visibility = 'hidden';
    where.textContent = rest;
    for (const curve of curves) curve.cell.textContent = curve.last;
  };
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
"""


def chart(title: str, unit: str, curves: Mapping[str, Sequence[Point]]) -> str:
    """One chart with its legend, as HTML.

    Args:
        title: What is drawn.
        unit: Unit of the values; empty for a pure number.
        curves: By name, at least one each with at least one point, in the order of the steps.
            Those of every step, by Lightning's suffix `_step`, are drawn thin.
    """
    heading = f"<h3>{escape(title)}{f' <small>{escape(unit)}</small>' if unit else ''}</h3>"
    values = [p.value for points in curves.values() for p in points if math.isfinite(p.value)]
    if not values:
        return f'<section class="card">{heading}<p class="where">not a finite value</p></section>'
    steps = [point.step for points in curves.values() for point in points]
    ticks = _ticks(min(values), max(values))
    x = _Axis(min(steps), max(max(steps), min(steps) + 1), _LEFT, _RIGHT)
    y = _Axis(ticks[0], ticks[-1], _BOTTOM, _TOP)
    drawn, legend = [_frame(x, y, ticks)], []
    for i, (name, points) in enumerate(curves.items()):
        colour = f"c{_STAGES.get(name.partition('/')[0], i % 4)}"
        thin = ' class="thin"' if name.endswith("_step") else ""
        drawn.append(_curve(thinned(points), x, y, colour, thin))
        sample = f'<svg viewBox="0 0 24 8"{thin}><path class="{colour}" d="M2 4H22"/></svg>'
        last = short(points[-1].value)
        legend.append(f"<li>{sample}{escape(name)} <b>{last}</b></li>")
    label = f"{title}: {', '.join(curves)} over steps {x.low:.0f} to {x.high:.0f}"
    return (
        f'<section class="card chart">{heading}<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}" data-axis="{x.low} {x.high} {_LEFT} {_RIGHT} {_WIDTH}">'
        f'{"".join(drawn)}<line class="cursor" y1="{_TOP}" y2="{_BOTTOM}"/></svg>'
        f'<ul class="legend">{"".join(legend)}</ul><p class="where">last values</p></section>'
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most some hundred points that look the same: the extremes of each stretch, and the ends.

    Args:
        points: Any number of points.
    """
    if len(points) <= _MOST_POINTS:
        return list(points)
    kept = {0, len(points) - 1}
    stretches = _MOST_POINTS // 2 - 1
    for i in range(stretches):
        stretch = range(i * len(points) // stretches, (i + 1) * len(points) // stretches)
        # A value that is not finite is the most extreme of all: the gap it leaves must stay.
        key = {j: v if math.isfinite(v := points[j].value) else math.inf for j in stretch}
        kept |= {min(stretch, key=key.__getitem__), max(stretch, key=key.__getitem__)}
    return [points[i] for i in sorted(kept)]


@dataclass(frozen=True)
class _Axis:
    """Maps values from `low` to `high` on places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _frame(x: _Axis, y: _Axis, ticks: list[float]) -> str:
    parts = [
        f'<path class="rule" d="M{_LEFT} {y(tick)}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{label}</text>'
        for tick, label in zip(ticks, _labels(ticks), strict=True)
    ]
    for tick in _ticks(x.low, x.high):
        if x.low <= tick <= x.high and tick == int(tick):
            place = f'x="{x(tick)}" y="{_BOTTOM + 17}"'
            parts.append(f'<text {place} text-anchor="middle">{int(tick):,}</text>')
    middle = (_LEFT + _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">step</text>')
    return "".join(parts)


def _curve(points: list[Point], x: _Axis, y: _Axis, colour: str, thin: str) -> str:
    paths = []
    for run in _finite_runs(points):
        places = "L".join(f"{x(step)} {y(value)}" for step, value in run)
        alone = len(run) == 1  # A line of no length with round ends is a dot.
        paths.append(
            f'<path class="{colour} dot" d="M{places}h0"/>'
            if alone
            else f'<path class="{colour}" d="M{places}"/>'
        )
    steps = " ".join(str(point.step) for point in points)
    values = " ".join(f"{point.value:.5g}" for point in points)
    return f'<g{thin} data-steps="{steps}" data-values="{values}">{"".join(paths)}</g>'


def _finite_runs(points: list[Point]) -> Iterator[list[Point]]:
    run: list[Point] = []
    for point in points:
        if math.isfinite(point.value):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, four or so apart."""
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size:
        low, high = low - (size or 1) / 2, high + (size or 1) / 2
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _labels(ticks: list[float]) -> list[str]:
    """Ticks with as many digits as tell them apart, without exponents where that fits."""
    step, largest = ticks[1] - ticks[0], max(abs(tick) for tick in ticks)
    if step >= 1e-4 and largest < 1e5:
        places = next(n for n in range(9) if abs(round(step, n) - step) < step * 1e-3)
        return [f"{tick:.{places}f}" for tick in ticks]
    digits = next(n for n in range(2, 18) if len({f"{t:.{n}g}" for t in ticks}) == len(ticks))
    return [f"{tick:.{digits}g}" for tick in ticks]
