"""The chart of bench.py: an SVG, made of text.

Two panels for each size of message: replies a second, and the 99th percentile
of the wait for a reply, both against the number of connections.  A line a
model, with its name at its end.  A mark is hollow where some connections got
no answer at all: their wait is longer than what is drawn.

It has its own background and is readable in a light and in a dark page; the
reader's browser chooses.  Colours are those of Okabe and Ito, which differ for
colour-blind eyes, too, lightened for the dark; and each model has a mark of
its own form.
"""

import collections
import itertools
import math
import textwrap
from typing import Any, Dict, List, Tuple
from xml.sax.saxutils import escape

__all__ = ["draw"]

Point = Dict[str, Any]

# Of the first model, the second, ...: its colour on white, on black, and its
# mark around (0, 0).
LOOKS = [
    ("#6b6b6b", "#b8b8b8", "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    ("#0072b2", "#56b4e9", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
    ("#c44e00", "#ff8c42", "M-3.6 -3.6h7.2v7.2h-7.2z"),
    ("#00805e", "#2fd0a0", "M0 -4.6L4.6 3.6H-4.6z"),
    ("#a8397f", "#ec9ccb", "M0 -5L5 0L0 5L-5 0z"),
    ("#7a6a00", "#f0e442", "M0 4.6L4.6 -3.6H-4.6z"),
]

STYLE = """\
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
.head { font-size: 17px; font-weight: 600 }
.name { font-weight: 600 }
.paper { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e }
.grid { stroke: #d9dee3 } .axis { stroke: #59636e }
.limit { stroke-dasharray: 2 3 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.lead { stroke-width: 1; opacity: .5 }
.mark { stroke-width: 1.6 } .hollow { fill: #ffffff }
.note { paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
%s
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .ink { fill: #f0f6fc } .faint { fill: #9198a1 }
.grid { stroke: #2a313c } .axis { stroke: #9198a1 } .hollow { fill: #0d1117 }
.note { stroke: #0d1117 }
%s
}"""

WIDTH, TOP, ROW, FOOT = 800, 66, 318, 52
LINE = 15           # pixels between two names


def tag(name: str, text: str = "", **attributes: Any) -> str:
    """Return an element; class_ stands for class, stroke_x for stroke-x."""
    words = "".join(' %s="%s"' % (
        key.rstrip("_").replace("_", "-"),
        escape("%.1f" % value if isinstance(value, float) else str(value),
               {'"': "&quot;"})) for key, value in attributes.items())
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
    for factor in 1, 2, 5, 10:
        if high / (unit * factor) <= 5:
            break
    count = math.ceil(high / (unit * factor))
    return [unit * factor * index for index in range(count + 1)]


def decades(low: float, high: float) -> List[float]:
    """Return the powers of ten from below low to above high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0 ** power for power in range(first, max(last, first + 1) + 1)]


def apart(wanted: List[float], low: float, high: float) -> List[float]:
    """Return places near the wanted ones, which ascend, LINE apart."""
    places: List[float] = []
    for place in wanted:
        low = max(place, low)
        places.append(low)
        low += LINE
    ceiling = high
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - LINE
    return places


def short_seconds(value: float) -> str:
    for unit, scale in ("\u00b5s", 1e6), ("ms", 1e3):
        if value * scale < 999:
            return "%g %s" % (value * scale, unit)
    return "%g s" % value


def short_count(value: float) -> str:
    return "%g k" % (value / 1e3) if value >= 1e3 else "%g" % value


class Panel:

    """One diagram: a value of each point against its connections."""

    def __init__(self, left: float, top: float, points: List[Point],
                 value: str, models: List[str]) -> None:
        self.left, self.right = left + 46, left + 286
        self.top, self.bottom = top + 30, top + ROW - 62
        self.value, self.log = value, value == "p99"
        self.points = [point for point in points if point[value]]
        values = [point[value] for point in self.points] or [1.0]
        self.ticks = (decades(min(values), max(values)) if self.log
                      else steps(max(values)))
        self.counts = sorted({point["connections"] for point in points})
        # of each model: its number, its name, and its points
        self.series = [(number, model, sorted(
            (point for point in self.points if point["model"] == model),
            key=lambda point: int(point["connections"])))
            for number, model in enumerate(models)]
        self.series = [each for each in self.series if each[2]]

    def x(self, count: float) -> float:
        low, high = self.counts[0] / 1.2, self.counts[-1] * 1.2
        part = math.log(count / low) / math.log(high / low)
        return self.left + (self.right - self.left) * part

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        part = (math.log(value / low) / math.log(high / low) if self.log
                else value / high)
        return self.bottom - (self.bottom - self.top) * part

    def place(self, point: Point) -> Tuple[float, float]:
        return self.x(point["connections"]), self.y(point[self.value])

    def frame(self, title: str, workers: int) -> List[str]:
        """Draw the grid, the axes and what they count."""
        parts = [label(title, self.left - 40, self.top - 16, "ink name")]
        for tick in self.ticks:
            y = self.y(tick)
            parts += [line(self.left, y, self.right, y, "grid"), label(
                (short_seconds if self.log else short_count)(tick),
                self.left - 6, y + 4, anchor="end")]
        for count in self.counts:
            x = self.x(count)
            parts += [line(x, self.bottom, x, self.bottom + 5, "axis"), label(
                "{:,}".format(count), x, self.bottom + 19, anchor="middle")]
        if self.counts[0] <= workers <= self.counts[-1]:
            x = self.x(workers)
            before = x > self.right - 75    # or else the words have no room
            parts += [line(x, self.top, x, self.bottom, "axis limit"), label(
                "%d workers" % workers, x - 4 if before else x + 4,
                self.bottom - 6, "note faint", "end" if before else "start")]
        return parts + [
            line(self.left, self.bottom, self.right, self.bottom, "axis"),
            label("connections", (self.left + self.right) / 2,
                  self.bottom + 37, anchor="middle")]

    def lines(self) -> List[str]:
        """Draw a line and its marks for each model."""
        parts = []
        for number, _, points in self.series:
            parts.append(tag(
                "path", class_="line s%d" % number, d="M" + "L".join(
                    "%.1f %.1f" % self.place(point) for point in points)))
            parts += [tag(
                "path", d=LOOKS[number % len(LOOKS)][2],
                class_="mark s%d %s" % (number, "hollow" if point["unanswered"]
                                        else "f%d" % number),
                transform="translate(%.1f %.1f)" % self.place(point))
                for point in points]
        return parts

    def unanswered(self) -> List[str]:
        """Say of each line where and how many first got no answer."""
        firsts = [(number, point) for number, _, points in self.series
                  for point in [each for each in points
                                if each["unanswered"]][:1]]
        middle = (self.left + self.right) / 2
        return [label("%d of %d unanswered" % (point["unanswered"],
                                               point["connections"]),
                      self.x(point["connections"]),
                      # the lines meet: one is above, the next below
                      self.y(point[self.value]) + (16 if index % 2 else -9),
                      "note f%d" % number,
                      "start" if self.x(point["connections"]) < middle
                      else "end")
                for index, (number, point) in enumerate(firsts)]

    def names(self) -> List[str]:
        """Write each model's name at the end of its line."""
        ends = sorted((self.y(points[-1][self.value]), number, model,
                       self.x(points[-1]["connections"]))
                      for number, model, points in self.series)
        places = apart([end[0] for end in ends], self.top, self.bottom)
        parts = []
        for place, (y, number, model, x) in zip(places, ends):
            parts += [line(x + 7, y, self.right + 8, place,
                           "lead s%d" % number),
                      label(model, self.right + 11, place + 4,
                            "name f%d" % number)]
        return parts


def colours(which: int, models: List[str]) -> str:
    """Return the style of each model's lines and fillings."""
    return "\n".join(".s%d { stroke: %s } .f%d { fill: %s }" % (
        number, looks[which], number, looks[which]) for number, looks
        in zip(range(len(models)), itertools.cycle(LOOKS)))


def claim(points: List[Point]) -> str:
    """Return the sentence below the title."""
    if any(point["unanswered"] for point in points):
        return ("Hollow: some connections got no answer at all. Each weighs "
                "the same in the percentile and has waited longer than drawn.")
    return "Every connection got its answers."


def caption(report: Dict[str, Any]) -> List[str]:
    """Return two lines: how the chart was made, and on what."""
    return [textwrap.shorten(report["command"], 110, placeholder=" \u2026"),
            "%s, %s, %s CPUs; %g seconds a point; the load is on the same "
            "host and checks every byte" % (report["python"], report["system"],
                                            report["cpus"], report["seconds"])]


def draw(report: Dict[str, Any]) -> str:
    """Return the chart of what bench.py has measured."""
    points = [point for point in report["points"] if not point["idle"]]
    models = list(collections.OrderedDict.fromkeys(
        point["model"] for point in points))
    sizes = sorted({point["size"] for point in points})
    height = TOP + ROW * len(sizes) + FOOT
    title = "The models of an echo server, as connections grow"
    parts = [tag("title", title),
             tag("desc", escape("; ".join(caption(report)))),
             tag("style", STYLE % (colours(0, models), colours(1, models))),
             tag("rect", width=WIDTH, height=height, rx=8, class_="paper"),
             label(title, 20, 30, "ink head"), label(claim(points), 20, 50)]
    for row, size in enumerate(sizes):
        some = [point for point in points if point["size"] == size]
        for left, value, words in (
                (14, "rate", "replies a second (messages of %d B)" % size),
                (408, "p99", "99th percentile of the wait for a reply")):
            panel = Panel(left, TOP + ROW * row, some, value, models)
            parts += panel.frame(words, report["workers"])
            parts += panel.lines() + panel.names()
        parts += panel.unanswered()     # in the last, where there is room
    for row, words in enumerate(caption(report)):
        parts.append(label(words, 20, height - 32 + 17 * row))
    return ('<?xml version="1.0" encoding="UTF-8"?>\n%s\n' % tag(
        "svg", "\n" + "\n".join(parts) + "\n",
        xmlns="http://www.w3.org/2000/svg", width=WIDTH, height=height,
        viewBox="0 0 %d %d" % (WIDTH, height), role="img"))
