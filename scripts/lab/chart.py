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

import math
import textwrap
from typing import Any, Callable, Dict, List, Tuple
from xml.sax.saxutils import escape

__all__ = ["draw"]

Point = Dict[str, Any]

# Of each model: its colour on white, on black, and its mark around (0, 0).
LOOKS = {
    "threads": ("#0072b2", "#56b4e9", "circle"),
    "pinned": ("#c44e00", "#ff8c42", "square"),
    "pool": ("#00805e", "#2fd0a0", "triangle"),
    "events": ("#a8397f", "#ec9ccb", "diamond"),
    "processes": ("#6b6b6b", "#b8b8b8", "cross"),
}
MARKS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "triangle": "M0 -4.6L4.6 3.6H-4.6z",
    "diamond": "M0 -5L5 0L0 5L-5 0z",
    "cross": "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
}
NAMES = {"pinned": "pinned pool"}

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


class Scale:

    """From a number to a place between two ends, by its logarithm or not."""

    def __init__(self, low: float, high: float, start: float, end: float,
                 log: bool) -> None:
        self.of = math.log if log else float  # type: Callable[[float], float]
        self.low, self.start = self.of(low), start
        self.step = (end - start) / (self.of(high) - self.low)

    def __call__(self, value: float) -> float:
        return self.start + (self.of(value) - self.low) * self.step


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
    places = []  # type: List[float]
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
                 value: str) -> None:
        self.left, self.right = left + 46, left + 286
        self.top, self.bottom = top + 30, top + ROW - 62
        self.value = value
        self.log = value == "p99"
        self.points = [point for point in points if point[value]]
        values = [point[value] for point in self.points] or [1.0]
        self.ticks = (decades(min(values), max(values)) if self.log
                      else steps(max(values)))
        self.counts = sorted({point["connections"] for point in points})
        self.x = Scale(self.counts[0] / 1.2, self.counts[-1] * 1.2,
                       self.left, self.right, True)
        self.y = Scale(self.ticks[0], self.ticks[-1], self.bottom, self.top,
                       self.log)

    def frame(self, title: str, workers: int) -> List[str]:
        """Draw the grid, the axes and what they count."""
        parts = [label(title, self.left - 40, self.top - 16, "ink name")]
        show = short_seconds if self.log else short_count
        for tick in self.ticks:
            y = self.y(tick)
            parts += [line(self.left, y, self.right, y, "grid"),
                      label(show(tick), self.left - 6, y + 4, anchor="end")]
        for count in self.counts:
            x = self.x(count)
            parts += [line(x, self.bottom, x, self.bottom + 5, "axis"),
                      label("{:,}".format(count), x, self.bottom + 19,
                            anchor="middle")]
        if self.counts[0] <= workers <= self.counts[-1]:
            x = self.x(workers)
            parts += [line(x, self.top, x, self.bottom, "axis limit"),
                      label("%d workers" % workers, *(
                          (x + 4, self.bottom - 6, "note faint", "start")
                          if x < self.right - 75 else
                          (x - 4, self.bottom - 6, "note faint", "end")))]
        parts += [line(self.left, self.bottom, self.right, self.bottom,
                       "axis"),
                  label("connections", (self.left + self.right) / 2,
                        self.bottom + 37, anchor="middle")]
        return parts

    def series(self) -> List[Tuple[str, List[Point]]]:
        """Return each model's points, those of the first model last."""
        names = [name for name in LOOKS
                 if any(point["model"] == name for point in self.points)]
        return [(name, sorted((point for point in self.points
                               if point["model"] == name),
                              key=lambda point: point["connections"]))
                for name in reversed(names)]

    def lines(self) -> List[str]:
        """Draw a line and its marks for each model."""
        parts = []
        for name, points in self.series():
            places = [(self.x(point["connections"]),
                       self.y(point[self.value])) for point in points]
            parts.append(tag("path", class_="line s-" + name, d="M" + "L".join(
                "%.1f %.1f" % place for place in places)))
            for place, point in zip(places, points):
                hollow = point["unanswered"] > 0
                parts.append(tag(
                    "path", tag("title", escape(self.hint(point))),
                    d=MARKS[LOOKS[name][2]],
                    class_="mark s-%s %s" % (
                        name, "hollow" if hollow else "f-" + name),
                    transform="translate(%.1f %.1f)" % place))
        return parts

    def unanswered(self) -> List[str]:
        """Say of each line where and how many first got no answer."""
        parts = []
        for name, points in self.series():
            for point in [each for each in points if each["unanswered"]][:1]:
                parts.append(label(
                    "%d of %d got no answer" % (point["unanswered"],
                                                point["connections"]),
                    self.x(point["connections"]) - 9,
                    self.y(point[self.value]) + 4, "note f-" + name, "end"))
        return parts

    def hint(self, point: Point) -> str:
        """Return what a mark says when it is pointed at."""
        words = "%s, %d connections: %s replies/s, p99 %s%.3g ms" % (
            point["model"], point["connections"],
            "{:,.0f}".format(point["rate"]),
            "> " if point["p99_at_least"] else "", point["p99"] * 1e3)
        if point["unanswered"]:
            words += ", %d without an answer" % point["unanswered"]
        return words

    def names(self) -> List[str]:
        """Write each model's name at the end of its line."""
        ends = sorted((self.y(points[-1][self.value]), name, points[-1])
                      for name, points in self.series())
        parts = []
        for place, (y, name, last) in zip(
                apart([end[0] for end in ends], self.top, self.bottom), ends):
            x = self.x(last["connections"])
            parts += [line(x + 7, y, self.right + 8, place,
                           "lead s-" + name),
                      label(NAMES.get(name, name), self.right + 11, place + 4,
                            "name f-" + name)]
        return parts


def colours(which: int) -> str:
    """Return the style of each model's lines and fillings."""
    return "\n".join(".s-%s { stroke: %s } .f-%s { fill: %s }" % (
        name, looks[which], name, looks[which])
        for name, looks in LOOKS.items())


def claim(report: Dict[str, Any]) -> str:
    """Return the sentence below the title."""
    if any(point["unanswered"] for point in report["points"]):
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
    sizes = sorted({point["size"] for point in points})
    height = TOP + ROW * len(sizes) + FOOT
    title = "The models of an echo server, as connections grow"
    parts = [tag("title", title),
             tag("desc", escape("; ".join(caption(report)))),
             tag("style", STYLE % (colours(0), colours(1))),
             tag("rect", width=WIDTH, height=height, rx=8, class_="paper"),
             label(title, 20, 30, "ink head"), label(claim(report), 20, 50)]
    for row, size in enumerate(sizes):
        some = [point for point in points if point["size"] == size]
        for left, value, words in (
                (14, "rate", "replies a second (messages of %d B)" % size),
                (408, "p99", "99th percentile of the wait for a reply")):
            panel = Panel(left, TOP + ROW * row, some, value)
            parts += panel.frame(words, report["workers"])
            parts += panel.lines() + panel.names()
        parts += panel.unanswered()     # in the last, where there is room
    for row, words in enumerate(caption(report)):
        parts.append(label(words, 20, height - 32 + 17 * row))
    return ('<?xml version="1.0" encoding="UTF-8"?>\n%s\n' % tag(
        "svg", "\n" + "\n".join(parts) + "\n",
        xmlns="http://www.w3.org/2000/svg", width=WIDTH, height=height,
        viewBox="0 0 %d %d" % (WIDTH, height), role="img"))

