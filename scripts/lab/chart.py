"""The chart of bench.py: an SVG, made of text.

Two panels: replies a second, and the longest wait for a reply, both against
the number of connections.  A line a model, with its name
at 

It has its own background and is readable in a light and in a dark page; the
reader's browser chooses.  Colours are those of Okabe and Ito, which differ for
colour-blind eyes, too, lightened for the dark; and each model has a mark of
its own form.
"""

import math
import os
import textwrap
from typing import Any, Dict, List, Tuple
from xml.sax.saxutils import escape

__all__ = ["draw"]

Point = Dict[str, Any]

# Of the first model, the second, ...: its mark around (0, 0).
MARKS = ["M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
         "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.6 -3.6h7.2v7.2h-7.2z",
         "M0 -4.6L4.6 3.6H-4.6z", "M0 -5L5 0L0 5L-5 0z",
         "M0 4.6L4.6 -3.6H-4.6z"]

WIDTH, HEIGHT, TOP, BOTTOM = 800, 436, 100, 322
LINE = 15           # pixels between two names


def tag(name: str, text: str = "", **attributes: Any) -> str:
    """Return an element; class_ stands for class, stroke_x for stroke-x."""
    words = "".join(' %s="%s"' % (
        key.rstrip("_").replace("_", "-"),
        escape("%.1f" % value if isinstance(value, float) else str(value)))
        for key, value in attributes.items())
    return "<%s%s>%s</%s>" % (name, words, text, name)


def label(words: str, x: float, y: float, class_: str = "faint",
          anchor: str = "start") -> str:
    return tag("text", escape(words), x=float(x), y=float(y), class_=class_,
               text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return tag("path", d="M%.1f %.1fL%.1f %.1f" % (x1, y1, x2, y2),
               class_=class_)


def steps(high: float) -> List[float]:
    """Return round numbers from 0 to just above high, four or so."""
    unit = 10.0 ** math.floor(math.log10(high / 2))
    factor = next(each for each in (1, 2, 5, 10) if high / unit / each <= 5)
    return [unit * factor * index
            for index in range(math.ceil(high / unit / factor) + 1)]


def decades(low: float, high: float) -> List[float]:
    """Return the powers of ten from below low to above high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0 ** power for power in range(first, max(last, first + 1) + 1)]


def apart(wanted: List[float], low: float, high: float) -> List[float]:
    """Return places near the wanted ones, which ascend, LINE apart."""
    places: List[float] = []
    for place in wanted:
        places.append(max([place, low] + [each + LINE
                                          for each in places[-1:]]))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], high)
        high = places[index] - LINE
    return places


def short(value: float, is_time: bool) -> str:
    if not is_time:
        return "%g k" % (value / 1e3) if value >= 1e3 else "%g" % value
    unit, scale = (("s", 1e6) if value >= 1e6 else
                   ("ms", 1e3) if value >= 1e3 else ("\u00b5s", 1))
    return "%g %s" % (value / scale, unit)


class Panel:

    """One diagram: a value of each point against its connections."""

    def __init__(self, left: float, points: List[Point], value: str,
                 models: List[str]) -> None:
        self.left, self.right = left + 46, left + 286
        self.value, self.log = value, value == "longest"
        values = [point[value] for point in points if point[value]] or [1.0]
        self.ticks = (decades(min(values), max(values)) if self.log
                      else steps(max(values)))
        self.counts = sorted({point["connections"] for point in points})
        # of each model: its number, its name, and its points
        self.series = [(number, model, sorted(
            (point for point in points
             if point["model"] == model and point[value]),
            key=lambda point: int(point["connections"])))
            for number, model in enumerate(models)]
        self.series = [each for each in self.series if each[2]]

    def x(self, count: float) -> float:
        low, high = self.counts[0] / 1.2, self.counts[-1] * 1.2
        return self.left + (self.right - self.left) * (
            math.log(count / low) / math.log(high / low))

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return BOTTOM - (BOTTOM - TOP) * (
            math.log(value / low) / math.log(high / low) if self.log
            else value / high)

    def place(self, point: Point) -> Tuple[float, float]:
        return self.x(point["connections"]), self.y(point[self.value])

    def frame(self, title: str, limits: Dict[str, int]) -> List[str]:
        """Draw the grid, the axes and what they count."""
        parts = [label(title, self.left - 40, TOP - 22, "ink name")]
        for tick in self.ticks:
            y = self.y(tick)
            parts += [line(self.left, y, self.right, y, "grid"),
                      label(short(tick, self.log), self.left - 6, y + 4,
                            anchor="end")]
        for count in self.counts:
            x = self.x(count)
            parts += [line(x, BOTTOM, x, BOTTOM + 5, "axis"), label(
                "{:,}".format(count), x, BOTTOM + 19, anchor="middle")]
        for workers in limits.values():
            if self.counts[0] < workers <= self.counts[-1]:
                x = self.x(workers)     # the words stand above all lines
                parts += [line(x, TOP - 2, x, BOTTOM, "axis limit"), label(
                    "%d workers" % workers, x, TOP - 5, anchor="middle")]
        return parts + [
            line(self.left, BOTTOM, self.right, BOTTOM, "axis"),
            label("connections", (self.left + self.right) / 2, BOTTOM + 37,
                  anchor="middle")]

    def lines(self) -> List[str]:
        """Draw a line and its marks for each model."""
        parts = []
        for number, _, points in self.series:
            parts.append(tag(
                "path", class_="line s%d" % number, d="M" + "L".join(
                    "%.1f %.1f" % self.place(point) for point in points)))
            parts += [tag(
                "path", d=MARKS[number],
                class_="mark s%d %s" % (number, "hollow" if point["starved"]
                                        else "f%d" % number),
                transform="translate(%.1f %.1f)" % self.place(point))
                for point in points]
        return parts

    def names(self) -> List[str]:
        """Write each model's name at the end of its line."""
        ends = sorted((self.place(points[-1])[::-1], number, model)
                      for number, model, points in self.series)
        parts = []
        for place, ((y, x), number, model) in zip(
                apart([end[0][0] for end in ends], TOP, BOTTOM), ends):
            parts += [line(x + 7, y, self.right + 8, place,
                           "lead s%d" % number),
                      label(model, self.right + 11, place + 4,
                            "name f%d" % number)]
        return parts


def claim(points: List[Point]) -> str:
    """Return the sentence below the title."""
    starved: Dict[str, int] = {}
    for point in sorted(points, key=lambda point: int(point["connections"])):
        if point["starved"]:
            starved.setdefault(point["model"], point["connections"])
    return "Hollow: a wait until the end (connections: %s)" % (
        ", ".join("%s from %d" % pair for pair in starved.items()) or "none")


def caption(report: Dict[str, Any]) -> List[str]:
    """Return how the chart was made, and on what: whose ceiling it shows."""
    cost = min([point["load_cpu"] for point in report["points"]
                if point["load_cpu"]], default=0)
    return [textwrap.shorten(report["command"], 110, placeholder=" \u2026"),
            "%s, messages of %d B, %g s a point%s" % (
                report["host"], report["size"], report["seconds"],
                "; a load process manages {:,.0f} replies/s at most".format(
                    1e6 / cost) if cost else "")]


def draw(report: Dict[str, Any]) -> str:
    """Return the chart of what bench.py has measured."""
    points = [point for point in report["points"] if not point["idle"]]
    with open(os.path.join(os.path.dirname(__file__), "chart.css")) as file:
        style = file.read()
    title = "The models of an echo server, as connections grow"
    parts = [tag("title", title),
             tag("style", "\n" + style),
             tag("rect", width=WIDTH, height=HEIGHT, rx=8, class_="paper"),
             label(title, 20, 30, "ink head"), label(claim(points), 20, 50)]
    for left, value, words in ((14, "rate", "replies a second"),
                               (408, "longest", "longest wait for a reply")):
        panel = Panel(left, points, value, list(report["workers"]))
        parts += panel.frame(words, {name: report["workers"][name]
                                     for _, name, _ in panel.series})
        parts += panel.lines() + panel.names()
    parts += [label(words, 20, HEIGHT - 32 + 17 * row)
              for row, words in enumerate(caption(report))]
    return ('<?xml version="1.0" encoding="UTF-8"?>\n%s\n' % tag(
        "svg", "\n" + "\n".join(parts) + "\n",
        xmlns="http://www.w3.org/2000/svg", width=WIDTH, height=HEIGHT,
        viewBox="0 0 %d %d" % (WIDTH, HEIGHT), role="img"))
