"""Drawings of machines for people: trees in layers, tori as grids, dragonflies as rings of groups, others as graphs.

What is alike is drawn once, with its number. A line's thickness grows with the logarithm of its bandwidth.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..schedules.show import BAND, INK, PALE
from .condense import Cable, Part, Plan, cables, condense, join, levels, signatures, whole
from .model import Topology
from .routing import Dragonfly, Torus
from .scene import Box, Line, Scene, Words
from .units import say_rate, say_seconds

COLOURS = ("#0f6fb5", "#d1580a", "#2a8f5b", "#8a4fa3", "#b8860b", "#0b9c9c", "#6b4f3a", "#5b6b7a")  # of kinds
NARROW = "#d62839"  # a cable with less bandwidth than others of its kind
TOP, MARGIN, ROW = 112, 28, 118  # pixels
WIDE = 1450  # pixels that the lowest layer of a tree may take before what is alike is put together
DOT, PITCH, IN_ROW, MOST_DOTS = 15, 18, 8, 32  # of ranks in the box of their host
SWITCH, HEIGHT = 66, 26  # pixels of a switch's box
MOST_PARTS = 80  # of a graph that is drawn in layers
SIDE = 32  # ranks of a torus that are drawn in each direction


def draw(topology: Topology) -> Scene:
    """Return a drawing of a machine."""
    scene = Scene(topology.name)
    pen = _Pen(topology, scene)
    if isinstance(topology.routing, Torus):
        _torus(pen, topology.routing.shape)
    elif isinstance(topology.routing, Dragonfly):
        _dragonfly(pen, topology.routing)
    else:
        _parts(pen)
    pen.frame()
    return scene


class _Pen:
    """The scene with the styles of one topology: colours of kinds, widths of bandwidths."""

    def __init__(self, topology: Topology, scene: Scene) -> None:
        self.topology, self.scene = topology, scene
        self.cables = cables(topology)
        self._least = min((cable.bandwidth for cable in self.cables), default=1.0)
        self.notes: list[str] = []

    def colour(self, some: Sequence[Cable]) -> str:
        """Return the colour of a kind, or of what is narrower."""
        return NARROW if any(c.narrow for c in some) else COLOURS[some[0].kind % len(COLOURS)]

    def thick(self, bandwidth: float) -> float:
        """Return the width of a line, in pixels."""
        return min(9.0, 1.4 + 0.9 * math.log2(max(1.0, bandwidth / self._least)))

    def line(self, a: tuple[float, float], b: tuple[float, float], some: Sequence[Cable], bend: float = 0) -> None:
        """Draw cables as one line."""
        narrow = any(c.narrow for c in some)
        width = self.thick(sum(c.bandwidth for c in some)) + (1.2 if narrow else 0)
        self.scene.add(Line(*a, *b, self.colour(some), width, dashed=narrow, bend=bend))

    def frame(self) -> None:
        """Add the title above, and the legend below."""
        topology, scene = self.topology, self.scene
        switches = topology.vertices - topology.size
        hosts = len(np.unique(topology.host))
        counts = [(topology.size, "rank"), (hosts, "host"), (switches, "switch")]
        words = ", ".join(_plural(count, word) for count, word in counts if count and (word != "host" or hosts > 1))
        rows = self._legend()
        scene.width = max(scene.width, 620.0, *(MARGIN + 60 + 7.2 * len(text) for _, text in rows))
        title = topology.name if len(topology.name) < 70 else topology.name[:67] + "..."
        scene.add(Words(MARGIN, 40, title, 22, INK, "start", bold=True), Words(MARGIN, 64, words, 13, PALE, "start"))
        y = scene.height + 14
        for note in self.notes:
            scene.add(Words(MARGIN, y + 4, note, 13, PALE, "start"))
            y += 24
        for line, text in rows:
            scene.add(line._replace(y1=y, y2=y), Words(MARGIN + 44, y + 4.5, text, 13, INK, "start"))
            y += 24
        scene.height = y + 8

    def _legend(self) -> list[tuple[Line, str]]:
        """Return a line, to be moved, and words for each kind, and for what is narrow."""
        rows = []
        for kind, name in enumerate(self.topology.kinds):
            some = [c for c in self.cables if c.kind == kind and not c.narrow]
            slow = [c for c in self.cables if c.kind == kind and c.narrow]
            for those, dashed in ((some, False), (slow, True)):
                if those:
                    rates = sorted({c.bandwidth for c in those})
                    waits = sorted({c.latency for c in those})
                    colour = NARROW if dashed else COLOURS[kind % len(COLOURS)]
                    line = Line(MARGIN, 0, MARGIN + 34, 0, colour, self.thick(rates[-1]), dashed)
                    more = " (narrower than others of the kind)" if dashed else ""
                    words = f"{name}: {_plural(len(those), 'cable')}, {_span(rates, say_rate)} each way"
                    rows.append((line, f"{words}, {_span(waits, say_seconds)}{more}"))
        return rows


def _parts(pen: _Pen) -> None:
    plan = condense(pen.topology)
    if sum(bool(part.ranks) for part in plan.parts) == 1 and pen.topology.vertices <= MOST_PARTS:
        plan = whole(pen.topology)  # one host: show what is in it
    level = levels(plan)
    above = [[n for n in near if level[n] >= level[number]] for number, near in enumerate(plan.near)]
    tops = [number for number, higher in enumerate(above) if not higher]
    if len(tops) == 1 and all(len(higher) == 1 for number, higher in enumerate(above) if number != tops[0]):
        _tree(pen, plan, level, tops[0])
    elif len(plan.parts) <= MOST_PARTS:
        _layers(pen, plan, level)
    else:
        _circle(pen, plan)


# ---- trees -------------------------------------------------------------------------------------------------------


@dataclass
class _Twig:
    """A part that is drawn, for `count` that are like it; of a mixture, `mixed`, it is only the first one."""

    number: int
    count: int
    mixed: bool = False
    below: list[_Twig] = field(default_factory=list)
    x: float = 0.0


def _tree(pen: _Pen, plan: Plan, level: list[int], top: int) -> None:
    sign = signatures(plan, level)
    root = _Twig(top, 1)
    _grow(root, plan, level, sign, WIDE)
    right = _place(root, plan, MARGIN + 8)
    said: set[tuple[int, str]] = set()
    bottom = TOP + ROW * level[top]
    _tree_part(pen, plan, level, root, bottom, said)
    pen.scene.width, pen.scene.height = right + MARGIN, bottom + 84


def _grow(twig: _Twig, plan: Plan, level: list[int], sign: list[int], room: float) -> None:
    """Add what is below, each for itself if there is room, in pixels, for all of them, else what is alike as one."""
    children = sorted(n for n in plan.near[twig.number] if level[n] < level[twig.number])
    if sum(_width(plan.parts[n]) + 14 for n in children) <= room:
        twig.below = [_Twig(number, 1) for number in children]
    else:
        first: dict[int, _Twig] = {}
        for number in children:
            first.setdefault(sign[number], _Twig(number, 0)).count += 1
        twig.below = list(first.values())
        most = max(4, int(room // max(_width(plan.parts[n]) + 26 for n in children)))  # 4: what is broken is seen
        if len(twig.below) > most:
            kept, rest = twig.below[: most - 1], twig.below[most - 1 :]
            twig.below = [*kept, _Twig(rest[0].number, sum(t.count for t in rest), mixed=True)]
    for child in twig.below:
        _grow(child, plan, level, sign, room / len(twig.below))


def _place(twig: _Twig, plan: Plan, left: float) -> float:
    """Give places from the left; return the right end."""
    part = plan.parts[twig.number]
    width = _width(part) + (12 if twig.count > 1 else 0)
    if not twig.below:
        twig.x = left + width / 2
        return left + width + 14
    right = left
    for child in twig.below:
        right = _place(child, plan, right)
    missing = left + width + 14 - right
    if missing > 0:  # it is wider than all that is below it
        right = left + missing / 2
        for child in twig.below:
            right = _place(child, plan, right)
        right += missing / 2
    twig.x = (twig.below[0].x + twig.below[-1].x) / 2
    return right


def _tree_part(pen: _Pen, plan: Plan, level: list[int], twig: _Twig, bottom: float, said: set[tuple[int, str]]) -> None:
    here = (twig.x, bottom - ROW * level[twig.number])
    for child in twig.below:
        there = (child.x, bottom - ROW * level[child.number])
        some = join(plan, twig.number, child.number)
        _edges(pen, plan, (twig.number, here), (child.number, there), some)
        text = _bundle_words(some)
        if (level[child.number], text) not in said:
            along = 0.75 - 0.2 * (len(said) % 2)  # not all at one height, where they could meet
            said.add((level[child.number], text))
            x, y = (a + along * (b - a) for a, b in zip(here, there, strict=True))
            aside = 7 if there[0] >= here[0] else -7
            pen.scene.add(Words(x + aside, y, text, 12, pen.colour(some), "start" if aside > 0 else "end", halo=True))
    for child in twig.below:
        _tree_part(pen, plan, level, child, bottom, said)
    _part(pen, plan.parts[twig.number], here, twig.count, twig.mixed)


def _edges(
    pen: _Pen, plan: Plan, upper: tuple[int, tuple[float, float]], lower: tuple[int, tuple[float, float]],
    some: Sequence[Cable],
) -> None:  # fmt: skip
    """Draw the cables between two parts: one line for each of the switches that the upper part is drawn as."""
    above, below = plan.parts[upper[0]], plan.parts[lower[0]]
    spots = {vertex: (upper[1][0] + dx, upper[1][1]) for vertex, dx in _slots(above)}
    start = {vertex: (lower[1][0] + dx, lower[1][1]) for vertex, dx in _slots(below)}
    lines: dict[tuple[tuple[float, float], tuple[float, float]], list[Cable]] = {}
    for cable in some:
        one, other = (cable.one, cable.other) if cable.other in above.vertices else (cable.other, cable.one)
        lines.setdefault((spots.get(other, upper[1]), start.get(one, lower[1])), []).append(cable)
    for (a, b), those in lines.items():
        pen.line(a, b, those)


def _slots(part: Part) -> list[tuple[int, float]]:
    """Return where the switches of a part stand, to the right of its middle; a host has no such places."""
    if part.ranks:
        return []
    shown = part.vertices[:IN_ROW]
    return [(vertex, (i - (len(shown) - 1) / 2) * _pitch(part)) for i, vertex in enumerate(shown)]


def _pitch(part: Part) -> float:
    return SWITCH + 8 if len(part.vertices) == 1 else 40


def _width(part: Part) -> float:
    if not part.ranks:
        return _pitch(part) * min(IN_ROW, len(part.vertices)) + 4
    if len(part.vertices) == 1:
        return 30
    return max(56, PITCH * min(IN_ROW, len(part.ranks)) + 14)


def _part(pen: _Pen, part: Part, at: tuple[float, float], count: int, mixed: bool) -> None:
    scene, (x, y) = pen.scene, at
    if not part.ranks:
        for _, dx in _slots(part):
            shadow = [(3 * k, 3 * k) for k in ((2, 1, 0) if count > 1 else (0,))]
            for right, down in shadow:
                size = SWITCH if len(part.vertices) == 1 else 30
                scene.add(Box(x + dx + right, y + down, size, HEIGHT, INK if not down else PALE, "#fff"))
        name, total = pen.topology.label(part.vertices[0]), count * len(part.vertices)
        if len(part.vertices) > 1:
            scene.add(Words(x, y - 20, f"{total} x {_stem(name)}", 13, INK, bold=True, halo=True))
            return
        if total > 1:
            beside = x + SWITCH / 2 + 14
            scene.add(Words(beside, y + 5, f"{total} x", 13, INK, "start", bold=True, halo=True))
        words = name if total == 1 else _stem(name)
        scene.add(Words(x, y + 4, _short(words, 16), 11 if len(words) < 12 else 7.5, "#fff"))
        return
    _host(pen, part, at, count, mixed)


def _host(pen: _Pen, part: Part, at: tuple[float, float], count: int, mixed: bool) -> None:
    scene, (x, y) = pen.scene, at
    ranks = part.ranks
    if len(part.vertices) == 1:
        for k in (2, 1, 0) if count > 1 else (0,):
            scene.add(Box(x + 3 * k, y + 3 * k, 28, 28, INK if not k else PALE, "#fff", round=True))
        if count == 1:
            scene.add(Words(x, y + 4.5, str(ranks[0]), 12 if ranks[0] < 1000 else 9, "#fff"))
        else:
            scene.add(Words(x + 3, y + 40, f"{count}", 13, INK, bold=True), Words(x + 3, y + 55, "ranks", 11, PALE))
        return
    rows = -(-min(len(ranks), MOST_DOTS) // IN_ROW)
    width, height = _width(part), PITCH * rows + 20
    for k in (2, 1, 0) if count > 1 else (0,):
        scene.add(Box(x + 3 * k, y + height / 2 - 13 + 3 * k, width, height, BAND, PALE))
    for i, rank in enumerate(ranks[:MOST_DOTS]):
        columns = min(IN_ROW, len(ranks) - i // IN_ROW * IN_ROW)
        dot = (x + (i % IN_ROW - (columns - 1) / 2) * PITCH, y + i // IN_ROW * PITCH)
        slow = [c for c in part.inside if rank in (c.one, c.other) and c.narrow]
        scene.add(Box(*dot, DOT, DOT, NARROW if slow else INK, round=True))
        if count == 1 and rank < 100:
            scene.add(Words(dot[0], dot[1] + 3, str(rank), 8, "#fff"))
    if part.inside:
        quick = max(part.inside, key=lambda c: c.bandwidth)
        colour = COLOURS[quick.kind % len(COLOURS)]
        scene.add(Box(x, y + PITCH * (rows - 1) + 16, width - 14, max(4.0, pen.thick(quick.bandwidth)), colour))
    low = y + height - 13
    if count > 1:
        what = "other hosts" if mixed else f"hosts of {len(ranks)}"
        scene.add(Words(x + 3, low + 22, f"{count} x", 13, INK, bold=True), Words(x + 3, low + 37, what, 11, PALE))
    else:
        name = pen.topology.label(next((v for v in part.vertices if v not in ranks), ranks[0]))
        first, last = ranks[0], ranks[-1]
        whose = f"{first}-{last}" if last - first == len(ranks) - 1 else f"{len(ranks)} ranks"
        stem = name if name.startswith("host") or "/" not in name else name.split("/")[0]
        scene.add(Words(x, low + 16, _short(stem, 14), 11, INK), Words(x, low + 30, whose, 10, PALE))


def _bundle_words(some: Sequence[Cable]) -> str:
    """Name the cables between two parts: 8 x 50 GB/s."""
    counts = Counter(c.bandwidth for c in some)
    return " + ".join(f"{n} x {say_rate(b)}" if n > 1 else say_rate(b) for b, n in sorted(counts.items()))


# ---- graphs ------------------------------------------------------------------------------------------------------


def _layers(pen: _Pen, plan: Plan, level: list[int]) -> None:
    """Hosts below, above them what they reach first, and so on; each layer ordered by the middle of its neighbours."""
    level = _below_if_it_joins_all(plan, level)
    lowest = min(level)
    rows = [[n for n in range(len(plan.parts)) if level[n] == here] for here in range(lowest, max(level) + 1)]
    spread = max(sum(_width(plan.parts[n]) + 26 for n in row) for row in rows)
    x = [0.0] * len(plan.parts)
    for sweep in range(12):
        for row in rows if sweep % 2 else rows[::-1]:
            if sweep:
                row.sort(key=lambda n: sum(x[m] for m in plan.near[n]) / max(1, len(plan.near[n])))
            _spread(row, plan, x, spread)
    bottom = TOP + ROW * max(level) + 10
    at = [(MARGIN + x[n], bottom - ROW * level[n]) for n in range(len(plan.parts))]
    said: set[tuple[int, str]] = set()
    for (one, other), some in plan.joins.items():
        same = level[one] == level[other]
        bend = min(40, 8 + abs(at[one][0] - at[other][0]) / 6) if same else 0.0
        a, b = sorted((at[one], at[other]))  # so that arcs go over what is between
        pen.line(a, b, some, bend=bend)
        text = _bundle_words(some)
        if (some[0].kind, text) not in said:
            said.add((some[0].kind, text))
            middle = ((a[0] + b[0]) / 2 + 6, (a[1] + b[1]) / 2 - (bend + 6 if same else 4))
            pen.scene.add(Words(*middle, text, 12, pen.colour(some), "start", halo=True))
    for number, part in enumerate(plan.parts):
        _part(pen, part, at[number], 1, False)
    pen.scene.width, pen.scene.height = spread + 2 * MARGIN, bottom - ROW * lowest + 76


def _below_if_it_joins_all(plan: Plan, level: list[int]) -> list[int]:
    """Put a switch that joins all hosts, beside others, under them: NVSwitch under cards on PCI switches."""
    hosts = {n for n, part in enumerate(plan.parts) if part.ranks}
    firsts = [n for n, here in enumerate(level) if here == 1]
    return [
        -1 if n in firsts and len(firsts) > 1 and hosts <= set(plan.near[n]) else level[n] for n in range(len(level))
    ]


def _spread(row: list[int], plan: Plan, x: list[float], spread: float) -> None:
    """Give the parts of a row their places, evenly over the width."""
    widths = [_width(plan.parts[n]) + 26 for n in row]
    gap = (spread - sum(widths)) / len(row)
    left = gap / 2
    for number, width in zip(row, widths, strict=True):
        x[number] = left + width / 2
        left += width + gap


def _circle(pen: _Pen, plan: Plan) -> None:
    """All parts on one circle, switches within it, at the middle of what they join."""
    hosts = [n for n, part in enumerate(plan.parts) if part.ranks]
    radius = max(220.0, 6.0 * len(hosts))
    centre = (MARGIN + radius + 20, TOP + radius + 10)
    at: dict[int, tuple[float, float]] = {}
    for i, number in enumerate(hosts):
        angle = 2 * math.pi * i / len(hosts) - math.pi / 2
        at[number] = (centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle))
    level = levels(plan)
    for number in sorted((n for n in range(len(plan.parts)) if n not in at), key=lambda n: level[n]):
        below = [at[n] for n in plan.near[number] if n in at] or [centre]
        pull = 0.8
        at[number] = (
            centre[0] + pull * (sum(p[0] for p in below) / len(below) - centre[0]),
            centre[1] + pull * (sum(p[1] for p in below) / len(below) - centre[1]),
        )
    for (one, other), some in plan.joins.items():
        pen.line(at[one], at[other], some)
    for number, part in enumerate(plan.parts):
        size = 10 if part.ranks else 14
        pen.scene.add(Box(*at[number], size, size, INK if part.ranks else PALE, "#fff", round=bool(part.ranks)))
    pen.scene.width, pen.scene.height = 2 * (radius + MARGIN + 20), centre[1] + radius + 30


# ---- tori --------------------------------------------------------------------------------------------------------


def _torus(pen: _Pen, shape: Sequence[int]) -> None:
    """Planes of the last two dimensions, side by side; cables to other planes are told of in words."""
    *outer, high, wide = (1, 1, *shape)
    planes = int(np.prod(outer))
    shown = min(planes, 12)
    rows, columns = min(high, SIDE), min(wide, SIDE)
    pitch = (
        46
        if rows * columns <= 100 and planes == 1
        else 26
        if planes == 1
        else max(12, min(26, 320 // max(rows, columns)))
    )
    across = min(shown, max(1, int(1200 // (columns * pitch + 40))))
    known = {(c.one, c.other): c for c in pen.cables}
    for plane in range(shown):
        left = MARGIN + 26 + plane % across * (columns * pitch + 44)
        top = TOP + 26 + plane // across * (rows * pitch + 52)
        if planes > 1:
            pen.scene.add(Words(left - 14, top - 20, f"plane {plane}", 11, PALE, "start"))
        _plane(pen, known, plane * high * wide, (high, wide), (rows, columns), (left, top, pitch))
    pen.scene.width = MARGIN * 2 + across * (columns * pitch + 44) + 10
    pen.scene.height = TOP + -(-shown // across) * (rows * pitch + 52) + 10
    if high > rows or wide > columns:
        pen.notes.append(f"the first {rows} x {columns} of {high} x {wide}")
    if planes > 1:
        pen.notes.append(f"{shown} of {planes} planes; each rank is joined to its like in the neighbouring planes too")
    pen.notes.append("lines that end at the edge come back at the other side")


def _plane(
    pen: _Pen, known: dict[tuple[int, int], Cable], first: int, full: tuple[int, int], shown: tuple[int, int],
    place: tuple[float, float, float],
) -> None:  # fmt: skip
    (high, wide), (rows, columns), (left, top, pitch) = full, shown, place

    def at(row: int, column: int) -> tuple[float, float]:
        return left + column * pitch, top + row * pitch

    for row in range(rows):
        for column in range(columns):
            rank = first + row * wide + column
            x, y = at(row, column)
            for length, here, step, dx, dy in ((wide, column, 1, 1, 0), (high, row, wide, 0, 1)):
                if length == 1:
                    continue
                last = here == length - 1
                other = rank + (1 - length) * step if last else rank + step
                cable = known.get((min(rank, other), max(rank, other)))
                if cable is None or (last and length == 2):
                    continue
                cut = here == (columns if dx else rows) - 1 and not last
                if last or cut:
                    reach = 0.45 * pitch
                    pen.line((x, y), (x + dx * reach, y + dy * reach), [cable])
                    if last:
                        back = at(row, 0) if dx else at(0, column)
                        pen.line(back, (back[0] - dx * reach, back[1] - dy * reach), [cable])
                else:
                    pen.line((x, y), (x + dx * pitch, y + dy * pitch), [cable])
    big = pitch >= 40
    for row in range(rows):
        for column in range(columns):
            rank = first + row * wide + column
            size = 26.0 if big else pitch * 0.42
            pen.scene.add(Box(*at(row, column), size, size, INK, "#fff", round=True))
            if big:
                pen.scene.add(Words(at(row, column)[0], at(row, column)[1] + 4, str(rank), 11, "#fff"))


# ---- dragonflies -------------------------------------------------------------------------------------------------


def _dragonfly(pen: _Pen, routing: Dragonfly) -> None:
    """Groups on a ring, with their routers; one group larger beside it."""
    groups, routers, ranks = routing.shape
    small = max(22.0, min(64.0, 1000.0 / groups))
    radius = max(150.0, groups * (small * 2 + 10) / (2 * math.pi)) if groups > 1 else 0.0
    centre = (MARGIN + radius + small + 14, TOP + radius + small + 14)
    at: dict[int, tuple[float, float]] = {}
    for group in range(groups):
        angle = 2 * math.pi * group / groups - math.pi / 2
        middle = (centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle))
        pen.scene.add(Box(*middle, 2 * small, 2 * small, BAND, PALE, round=True))
        at |= _ring(routing.size + group * routers, routers, middle, small * 0.68)
        out = (centre[0] + (radius + small + 12) * math.cos(angle), centre[1] + (radius + small + 12) * math.sin(angle))
        pen.scene.add(Words(out[0], out[1] + 4, str(group), 11, INK, bold=True))
    faint, thin = (1.0, 1.0) if groups <= 12 else (0.5, 0.7)
    for cable in (c for c in pen.cables if min(c.one, c.other) >= routing.size):
        line = Line(
            *at[cable.one], *at[cable.other], pen.colour([cable]), pen.thick(cable.bandwidth) * thin,
            dashed=cable.narrow, faint=1.0 if cable.narrow else faint,
        )  # fmt: skip
        pen.scene.add(line)
    for spot in at.values():
        pen.scene.add(Box(*spot, small * 0.2, small * 0.2, INK, round=True))
    right = centre[0] + radius + small + 40
    bottom = _one_group(pen, routing, right)
    pen.scene.width = right + 330
    pen.scene.height = max(centre[1] + radius + small + 34, bottom)
    pen.notes.append(
        f"{_plural(groups, 'group')} of {_plural(routers, 'router')}, {_plural(ranks, 'rank')} on each; "
        f"{_plural(routing.copies, 'cable')} between any two groups"
    )


def _one_group(pen: _Pen, routing: Dragonfly, left: float) -> float:
    """Draw the first group, large, with its ranks; return where it ends."""
    _, routers, ranks = routing.shape
    radius = 84.0 if routers > 1 else 0.0
    middle = (left + 155, TOP + 180)
    at = _ring(routing.size, routers, middle, radius)
    pen.scene.add(
        Words(middle[0], TOP + 14, "group 0", 14, INK, bold=True), Box(*middle, 300, 300, BAND, PALE, round=True)
    )
    for cable in pen.cables:
        if cable.one in at and cable.other in at:
            pen.line(at[cable.one], at[cable.other], [cable])
    known = {cable.one: cable for cable in pen.cables if cable.one < routing.size}
    for number, spot in enumerate(at.values()):
        angle = 2 * math.pi * number / routers - math.pi / 2
        shown = min(ranks, 4)
        for k in range(shown):
            turn = angle + (k - (shown - 1) / 2) * min(0.16, 1.2 / routers / shown * 2)
            dot = (middle[0] + 132 * math.cos(turn), middle[1] + 132 * math.sin(turn))
            pen.line(spot, dot, [known[number * ranks + k]])
            pen.scene.add(Box(*dot, 9, 9, INK, "#fff", round=True))
    for number, spot in enumerate(at.values()):
        pen.scene.add(Box(*spot, 20, 20, INK, "#fff"), Words(spot[0], spot[1] + 4, str(number), 10, "#fff"))
    words = f"ranks 0-{routers * ranks - 1}" + (f" (4 of {ranks} drawn on each router)" if ranks > 4 else "")
    pen.scene.add(Words(middle[0], middle[1] + 172, words, 12, PALE))
    return middle[1] + 190


def _ring(first: int, count: int, middle: tuple[float, float], radius: float) -> dict[int, tuple[float, float]]:
    angles = [2 * math.pi * i / count - math.pi / 2 for i in range(count)]
    radius = radius if count > 1 else 0.0
    return {
        first + i: (middle[0] + radius * math.cos(a), middle[1] + radius * math.sin(a)) for i, a in enumerate(angles)
    }


# ---- words -------------------------------------------------------------------------------------------------------


def _span(values: Sequence[float], say: Callable[[float], str]) -> str:
    return say(values[0]) if len(values) == 1 else f"{say(values[0])} to {say(values[-1])}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 'es' if word.endswith('ch') else 's'}"


def _stem(label: str) -> str:
    return re.sub(r"[ \d.]+$", "", label) or label


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
