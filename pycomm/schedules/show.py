"""Drawings of a verified collective: as text for a terminal, and as SVG for a slide.

Ranks are columns. A row is a hop: all messages that have to wait for the same number of messages before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .schedule import COPY, RECV, REDUCE_FROM, SEND, Ids, Schedule
from .verify import Event, Verdict, trace

INK, PALE, BAND = "#1b2733", "#8a97a5", "#f3f6f9"
COLOUR = {RECV: "#0f6fb5", REDUCE_FROM: "#d1580a"}  # told apart by every kind of eye
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
LEFT, TOP, TRACK, PAD, WIDTH = 76, 128, 26, 12, 660  # pixels; the last one is the least


def text(schedules: Sequence[Schedule]) -> str:
    """Draw the schedules of all ranks as a table of characters; raise ScheduleError if they are wrong."""
    verdict, events = trace(schedules)
    first = schedules[0]
    cells: dict[tuple[int, int], list[str]] = {}
    for event in events:
        chunks = _chunks(first, event.chunks)
        if event.source == event.target:
            sign = "=" if event.kind == COPY else "+="
            cells.setdefault((event.hop, event.target), []).append(f"{sign} {chunks}".rstrip())
        else:
            sign = "+" if event.kind == REDUCE_FROM else ""
            cells.setdefault((event.hop, event.source), []).append(f"{chunks} -> {event.target}".lstrip())
            cells.setdefault((event.hop, event.target), []).append(f"{sign}{chunks} <- {event.source}".lstrip())
    rows = [["hop", *(f"rank {rank}" for rank in range(first.size))]]
    for hop in range(verdict.hops + 1):
        columns = [sorted(cells.get((hop, rank), []), key=_sends_first) for rank in range(first.size)]
        for line in range(max(map(len, columns))):
            label = str(hop) if not line else ""
            rows.append([label, *(column[line] if line < len(column) else "" for column in columns)])
        rows.append([])
    widths = [max(len(row[i]) for row in rows if row) for i in range(first.size + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    what = "3 " if first.nplaced > 1 else ""
    legend = f"{what}-> 1 sends{' chunk 3' * bool(what)} to rank 1, {what}<- 0 receives, +{what}<- 0 reduces"
    return "\n".join([first.title, _costs(verdict), "", *lines, legend])


def _sends_first(cell: str) -> int:
    return 0 if "->" in cell else 1 if "<-" in cell else 2


def rank_text(schedule: Schedule) -> str:
    """Tell what one rank does, round by round, in words."""
    lines = [f"{schedule.title}: what rank {schedule.rank} does"]
    for number, ops in enumerate(schedule.rounds()):
        for k, op in enumerate(ops):
            name = " and ".join(schedule.chunk_name(chunk) for chunk in op.chunks.tolist())
            if op.peer < 0:
                sources = " and ".join(schedule.chunk_name(chunk) for chunk in op.srcs.tolist())
                what = f"copy {sources} to {name}" if op.kind == COPY else f"combine {sources} into {name}"
            elif op.kind == SEND:
                what = f"send {name} to rank {op.peer}"
            else:
                what = f"{'receive' if op.kind == RECV else 'reduce'} {name} from rank {op.peer}"
            lines.append(f"{f'round {number}' if not k else '':10}{what}")
    return "\n".join(lines)


def svg(schedules: Sequence[Schedule]) -> str:
    """Draw the schedules of all ranks as an SVG document; raise ScheduleError if they are wrong."""
    verdict, events = trace(schedules)
    first = schedules[0]
    pitch = max(132 if first.size <= 9 else 84, (WIDTH - LEFT) // first.size)
    width = LEFT + pitch * first.size + 12
    body: list[str] = []
    y = TOP
    for hop in range(verdict.hops + 1):
        here = [event for event in events if event.hop == hop]
        messages = [event for event in here if event.source != event.target]
        if messages:
            tracks = _tracks(messages)
            height = TRACK * len(tracks) + 2 * PAD
            body.append(
                f'<rect x="{LEFT - 34}" y="{y}" width="{width - LEFT + 22}" height="{height}" rx="8" fill="{BAND}"/>'
            )
            body.append(_text(LEFT - 50, y + height / 2 + 5, str(hop), 15, PALE, anchor="middle"))
            for number, track in enumerate(tracks):
                at = y + PAD + TRACK * (number + 0.5) + 4
                body += [_arrow(first, event, both, pitch, at) for event, both in track]
            y += height + 8
        local = sorted({(event.target, event.kind) for event in here if event.source == event.target})
        if local:
            body += [_local(LEFT + pitch * (rank + 0.5), y + 11, kind) for rank, kind in local]
            y += 30
    lanes = []
    for rank in range(first.size):
        x = LEFT + pitch * (rank + 0.5)
        lanes.append(f'<line x1="{x}" y1="{TOP - 26}" x2="{x}" y2="{y}" stroke="{PALE}" stroke-opacity="0.45"/>')
        lanes.append(f'<circle cx="{x}" cy="{TOP - 34}" r="17" fill="{INK}"/>')
        lanes.append(_text(x, TOP - 28.5, str(rank), 15, "#fff", anchor="middle", weight=600))
    bands = [part for part in body if part.startswith("<rect") and f'fill="{BAND}"' in part]
    rest = [part for part in body if part not in bands]
    height = y + 46
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="{FONT}">',
            f"<title>{escape(first.title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            _text(24, 38, first.title, 22, INK, weight=600),
            _text(24, 62, _costs(verdict), 13, PALE),
            *bands,
            *lanes,
            *rest,
            *_legend(first, {event.kind for event in events}, y + 28),
            "</svg>\n",
        ]
    )


def _costs(v: Verdict) -> str:
    counts = ((v.hops, "hop"), (v.messages, "message"), (v.peers, "peer"))
    hops, messages, peers = (f"{count} {word}{'s' * (count != 1)}" for count, word in counts)
    return f"{hops}, {messages}; a rank has up to {peers} and sends up to {v.sent} n, all ranks send {v.traffic} n"


def _chunks(schedule: Schedule, chunks: Ids) -> str:
    """Name chunks briefly: "0-3,5"; pairs "0>2"; nothing if there is but one chunk in all."""
    if schedule.nplaced == 1:
        return ""
    if schedule.contract.blocks == "pair":
        size = schedule.size * schedule.cut
        return ",".join(f"{chunk // size}>{chunk // schedule.cut % schedule.size}" for chunk in chunks.tolist())
    runs: list[list[int]] = []
    for chunk in sorted(chunks.tolist()):
        if runs and chunk == runs[-1][1] + 1:
            runs[-1][1] = chunk
        else:
            runs.append([chunk, chunk])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _tracks(messages: list[Event]) -> list[list[tuple[Event, bool]]]:
    """Lay messages, the short ones first, on the first track where they overlap no other; exchanges become one."""
    seen: dict[tuple[int, int, int, bytes], int] = {}
    arrows: list[tuple[Event, bool]] = []
    for event in sorted(messages, key=lambda e: (abs(e.target - e.source), min(e.source, e.target), e.source)):
        back = seen.pop((event.target, event.source, event.kind, event.chunks.tobytes()), None)
        if back is not None:
            arrows[back] = (arrows[back][0], True)
        else:
            seen[event.source, event.target, event.kind, event.chunks.tobytes()] = len(arrows)
            arrows.append((event, False))
    tracks: list[list[tuple[Event, bool]]] = []
    for event, both in arrows:
        low, high = sorted((event.source, event.target))
        for track in tracks:
            if all(high <= min(e.source, e.target) or low >= max(e.source, e.target) for e, _ in track):
                track.append((event, both))
                break
        else:
            tracks.append([(event, both)])
    return tracks


def _arrow(schedule: Schedule, event: Event, both: bool, pitch: int, y: float) -> str:
    colour = COLOUR[event.kind]
    way = 1 if event.target > event.source else -1
    start = LEFT + pitch * (event.source + 0.5) + 7 * way
    end = LEFT + pitch * (event.target + 0.5) - 7 * way
    heads = [_head(end, y, way, colour), *([_head(start, y, -way, colour)] if both else [])]
    tail = start + 7 * way if both else start
    label = _chunks(schedule, event.chunks)
    if len(label) * 7.5 > pitch - 40:
        label = f"{len(event.chunks)} chunks"
    beside = LEFT + pitch * (event.source + 0.5 + way / 2)  # where no lane crosses the label
    dot = "" if both else f'<circle cx="{start}" cy="{y}" r="3" fill="{colour}"/>'
    line = f'<line x1="{tail}" y1="{y}" x2="{end - 7 * way}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    return dot + line + "".join(heads) + _text(beside, y - 5, label, 13, colour, anchor="middle", weight=600)


def _head(x: float, y: float, way: int, colour: str) -> str:
    return f'<path d="M{x} {y} l{-9 * way} -5 v10 z" fill="{colour}"/>'


def _local(x: float, y: float, kind: int) -> str:
    colour = PALE if kind == COPY else COLOUR[REDUCE_FROM]
    return (
        f'<rect x="{x - 6}" y="{y - 6}" width="12" height="12" rx="2" transform="rotate(45 {x} {y})" fill="{colour}"/>'
    )


def _legend(schedule: Schedule, kinds: set[int], y: float) -> list[str]:
    parts = []
    x = float(LEFT - 34)
    for kind, words in ((REDUCE_FROM, "is sent and reduced"), (RECV, "is sent")):
        if kind in kinds:
            if schedule.nplaced > 1:
                words = (
                    f"3: chunk 3 {words}" if schedule.contract.blocks != "pair" else f"0>2: what 0 has for 2 {words}"
                )
            parts += [
                f'<line x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}" stroke="{COLOUR[kind]}" stroke-width="2"/>',
                _head(x + 27, y - 4, 1, COLOUR[kind]),
                _text(x + 36, y, words, 13, INK),
            ]
            x += 62 + 6.6 * len(words)
    if any(kind not in COLOUR for kind in kinds):
        parts += [_local(x + 8, y - 4, -1), _text(x + 24, y, "combined locally", 13, INK)]
    return parts


def _text(x: float, y: float, words: str, size: int, colour: str, *, anchor: str = "start", weight: int = 400) -> str:
    if not words:
        return ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )
