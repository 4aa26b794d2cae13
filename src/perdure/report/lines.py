"""Lines in SVG, drawn here: scales, broken lines, bands, sparklines, whiskers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from perdure.report.markup import Html, el
from perdure.report.records import finite

Point = tuple[float, float]
LABEL = 13.0  # pixels from one line of text to the next


@dataclass(frozen=True)
class Scale:
    """A straight map from data (`low` to `high`) to pixels (`start` to `end`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`; the middle where the data has no width."""
        width = self.high - self.low
        share = (value - self.low) / width if width else 0.5
        return self.start + share * (self.end - self.start)


def path(points: Iterable[Point], closed: bool = False) -> str:
    """Return the `d` of a path through pixel points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")


def runs(values: Sequence[float | None]) -> list[list[int]]:
    """Return the stretches of indices that hold a number: a line breaks where nothing was measured."""
    stretches: list[list[int]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(index)
    return [stretch for stretch in stretches if stretch]


def thin(points: Sequence[Sequence[float]], most: int) -> list[Point]:
    """Return at most `most` points, each the mean of a stretch. Values that are not finite are left out."""
    pairs = [(float(x), float(y)) for x, y in points if finite(y)]
    if len(pairs) <= most:
        return pairs
    cuts = [round(i * len(pairs) / most) for i in range(most + 1)]
    return [(fmean(x for x, _ in pairs[a:b]), fmean(y for _, y in pairs[a:b])) for a, b in pairwise(cuts)]


def without_overlap(values: Sequence[float], scale: Scale, least: float = LABEL) -> list[float]:
    """Return the values whose labels do not overlap: `least` pixels or more between any two. Earlier values have priority."""
    chosen: list[float] = []
    for value in values:
        if all(abs(scale(value) - scale(other)) >= least for other in chosen):
            chosen.append(value)
    return chosen


def ticks(count: int, scale: Scale) -> range:
    """Return the numbers below an axis, from 0 to count - 1: all of them, or every 2nd, 5th, 10th and so on, so that they fit."""
    wide = 7 * len(str(count)) + 5  # pixels of the longest number, and a gap
    step = abs(scale(1) - scale(0)) or wide
    every = next(n * 10**power for power in range(9) for n in (1, 2, 5) if n * 10**power * step >= wide)
    return range(0, count, every)


def sparkline(points: Sequence[Sequence[float]], width: int = 96, height: int = 22) -> Html | None:
    """Return a word-sized line that ends in a dot, on its own scale; None without a point."""
    line = thin(points, 48)
    if not line:
        return None
    x = Scale(line[0][0], line[-1][0], 3, width - 4)
    y = Scale(min(v for _, v in line), max(v for _, v in line), height - 4, 4)
    drawn = [(x(a), y(b)) for a, b in line]
    dot = el("circle", class_="dot", cx=drawn[-1][0], cy=drawn[-1][1], r=2)
    return el(
        "svg",
        el("path", d=path(drawn), class_="line thin"),
        dot,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        class_="spark",
        aria_hidden="true",
    )


def whisker(
    x: Scale,
    low: float | None,
    value: float | None,
    high: float | None,
    marks: Sequence[tuple[float, str]],
    tone: str = "",
) -> Html:
    """Return a dot with its interval on scale `x`, over vertical marks (position, class): one table cell's drawing."""
    width, middle = x.start + x.end, 11
    parts = [el("line", x1=x(at), x2=x(at), y1=0, y2=22, class_=name) for at, name in marks]
    if low is not None and high is not None:
        parts.append(el("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_=f"whisker {tone}"))
    if value is not None:
        parts.append(el("circle", cx=x(value), cy=middle, r=4, class_=f"point {tone}"))
    return el(
        "svg", parts, viewBox=f"0 0 {width:.0f} 22", width=int(width), height=22, class_="whiskers", aria_hidden="true"
    )
