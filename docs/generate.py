"""Writes the parts of the documentation that follow from the code: `python docs/generate.py`, with pycomm installed.

docs/algorithms.md is written whole; in README.md, what stands between a pair of marks. A test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from pycomm import knobs
from pycomm.schedules import registry
from pycomm.schedules.contract import CONTRACTS
from pycomm.schedules.show import svg
from pycomm.schedules.verify import Verdict, verify
from pycomm.schedules.view import emit

ROOT = Path(__file__).parents[1]
SIZES = (7, 8)
GROUPS = {7: ((0, 1, 2, 3), (4, 5, 6)), 8: ((0, 1, 2, 3), (4, 5, 6, 7))}

PREFACE = """\
# Algorithms

<!-- written by docs/generate.py from the register and the verifier -->

What `pycomm info` lists, as `pycomm verify all --collective all` counts it on {sizes} ranks. Every number is counted
from the schedules themselves:

- *rounds*: of the rank that has most;
- *hops*: the longest chain of messages that each have to wait for the one before, which is what latency is made of;
- *sent*: what the rank that sends most sends, as a multiple of n, the bytes of a rank's full vector (a block of an
  allgather, reduce-scatter, gather, scatter or all-to-all is n/p), which is what bandwidth is made of;
- *traffic*: the same of all ranks together.

*uneven*: whether blocks may differ in length where a rank knows only its own; *told*: if the other ranks of its group
tell it theirs, as they do in `Alltoallv`. Hierarchical algorithms are made of others (`hierarchical(direct, ring)`:
direct within a host, a ring across hosts); here they run on
{groups}.

`pycomm show NAME --collective C -n P` draws any of them, `pycomm show NAME --rank R` tells one rank's part in words,
and [CONTRIBUTING.md](../CONTRIBUTING.md) says how to write one.
"""


def algorithms() -> str:
    """Return docs/algorithms.md."""
    sizes = " and ".join(map(str, SIZES))
    groups = " and ".join(" + ".join(str(len(group)) for group in GROUPS[size]) for size in SIZES)
    parts = [PREFACE.format(sizes=sizes, groups=f"groups of {groups} ranks")]
    order = list(CONTRACTS)
    listing = sorted(registry.listing(), key=lambda entry: (order.index(entry.collective), entry.name))
    for collective, entries in groupby(listing, key=lambda entry: entry.collective):
        parts.append("\n".join([f"## {collective}\n", *_table(list(entries))]) + "\n")
    return "\n".join(parts)


def _table(entries: list[registry.Algorithm]) -> Iterator[str]:
    columns = ("rounds", "hops", "sent", "traffic")
    yield "| algorithm | " + " | ".join(f"{name}, p={size}" for name in columns for size in SIZES) + " | uneven |"
    yield "| --- " * (2 + len(columns) * len(SIZES)) + "|"
    for entry in entries:
        counts = [_verify(entry, size) for size in SIZES]
        cells = [str(v.rounds) for v in counts] + [str(v.hops) for v in counts]
        cells += [_bytes(v, v.sent) for v in counts] + [_bytes(v, v.traffic) for v in counts]
        uneven = "yes" if counts[0].uneven else "told" if entry.grouped else "no"
        yield f"| {entry.name} | " + " | ".join(cells) + f" | {uneven} |"
    yield ""
    yield from (f"- **{entry.name}**: {entry.about} *{entry.cite}.*" for entry in entries)


def _bytes(verdict: Verdict, amount: object) -> str:
    return "-" if verdict.collective == "barrier" else f"{amount} n"


def _verify(entry: registry.Algorithm, size: int) -> Verdict:
    return verify(entry.name, entry.collective, size=size, groups=GROUPS[size] if entry.grouped else None)


def settings() -> str:
    """Return the table of environment variables in README.md."""
    rows = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for knob in knobs.KNOBS:
        also = f" (else {', '.join(f'`{name}`' for name in knob.fallbacks)})" if knob.fallbacks else ""
        default = f"`{knob.default}`" if knob.default else ""
        rows.append(f"| `{knob.name}` | {knob.kind.name} | {default} | {knob.help}{also} |")
    return "\n".join(rows)


def picture() -> str:
    """Return docs/ring.svg, the picture in README.md."""
    return svg([emit("ring", "allreduce", size=4, rank=rank) for rank in range(4)])


def outputs() -> dict[Path, str]:
    """Return what each generated file should hold."""
    readme = ROOT / "README.md"
    before, begin, rest = readme.read_text().partition("<!-- settings -->\n")
    _, end, after = rest.partition("\n<!-- end of settings -->")
    return {
        ROOT / "docs" / "algorithms.md": algorithms(),
        ROOT / "docs" / "ring.svg": picture(),
        readme: before + begin + settings() + end + after,
    }


if __name__ == "__main__":
    for path, text in outputs().items():
        path.write_text(text)
