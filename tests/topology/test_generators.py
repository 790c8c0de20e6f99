"""The generators: what they build, and what they say to wrong texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machines import EXAMPLES, GENERATED, HERE

from pycomm.errors import InvalidArgument
from pycomm.topology import Links, Paths, check_period, generate, load


def flat_ranks(groups):
    return [rank for member in groups for rank in (flat_ranks(member) if isinstance(member, tuple) else [member])]


@pytest.mark.parametrize("text", GENERATED)
def test_a_machine_is_consistent(text):
    topology = generate(text)
    links = topology.links
    assert topology.name == text and len(topology.host) == len(topology.reduce_rate) == topology.size
    assert (links.source != links.target).all() and links.kind.max(initial=0) < max(1, len(topology.kinds))
    assert max(links.source.max(initial=0), links.target.max(initial=0)) < topology.vertices
    assert sorted(flat_ranks(topology.groups)) == list(range(topology.size))
    there = sorted(zip(links.source, links.target, links.kind, links.bandwidth, links.latency, strict=True))
    back = sorted(zip(links.target, links.source, links.kind, links.bandwidth, links.latency, strict=True))
    assert there == back  # full duplex, the same both ways


@pytest.mark.parametrize("text", [*GENERATED, "fat-tree:1024,hosts=8", "dragonfly:17x8x4", "rails:64x8"])
def test_the_period_is_proved_and_is_the_smallest(text):
    topology = generate(text)
    check_period(topology)
    if topology.size <= 128 and "degrade" not in text and "speeds" not in text:
        for period in range(1, topology.period):
            if topology.size % period == 0:
                with pytest.raises(InvalidArgument, match="not the same after a rotation"):
                    check_period(replace(topology, period=period))


def changed(topology, **columns):
    links = topology.links._replace(**{name: np.array(getattr(topology.links, name)) for name in columns})
    for name, (link, value) in columns.items():
        getattr(links, name)[link] = value
    return replace(topology, links=links)


@pytest.mark.parametrize("column", [("bandwidth", 1.0), ("latency", 1.0), ("kind", 1)])
def test_one_link_unlike_the_others_refutes_a_period(column):
    name, value = column
    topology = generate("fat-tree:256,down=16")
    check_period(topology)
    with pytest.raises(InvalidArgument, match="not the same after a rotation by 16 ranks"):
        check_period(changed(topology, **{name: (300, value)}))


def test_a_slow_rank_and_a_moved_rank_refute_a_period():
    topology = generate("boxes:4x4")
    with pytest.raises(InvalidArgument, match="rank 1 and rank 5 do not reduce equally fast"):
        check_period(replace(topology, reduce_rate=np.array([1.0] * 5 + [2.0] + [1.0] * 10)))
    with pytest.raises(InvalidArgument, match="ranks of one host"):
        check_period(replace(topology, host=np.array([0] * 5 + [1] * 3 + [2] * 4 + [3] * 4)))
    with pytest.raises(InvalidArgument, match="does not divide"):
        check_period(replace(topology, period=3))


def test_an_unused_link_refutes_a_period():
    """Links that no path takes must be there again too."""
    topology = generate("torus:3x3")
    more = Links(*(np.append(column, column[:1]) for column in topology.links))
    with pytest.raises(InvalidArgument, match="not the same after a rotation"):
        check_period(replace(topology, links=more))


class Odd:
    """Like the routing of a flat machine with a second cable at each rank, which rank 0 alone sends over."""

    def __init__(self, topology):
        self.inner, self.extra = topology.routing, len(topology.links.source)

    def paths(self, source, target):
        start, links = self.inner.paths(source, target)
        return Paths(start, np.where(links == 0, self.extra, links))


def test_messages_that_take_other_cables_refute_a_period():
    flat = generate("flat:4")
    more = Links(*(np.concatenate([column, column]) for column in flat.links))
    more.kind[8:] = 1
    twice = replace(flat, links=more, kinds=("port", "spare"))
    check_period(twice)
    with pytest.raises(InvalidArgument, match="are not alike"):
        check_period(replace(twice, routing=Odd(flat)))


def test_a_taper_narrows_the_leaves_ways_up():
    def widths(text):
        topology = generate(text)
        return {k: topology.links.bandwidth[topology.links.kind == i].max() for i, k in enumerate(topology.kinds)}

    assert widths("fat-tree:1024,bandwidth=100Gbit") == {"nic": 12.5e9, "leaf": 400e9}
    assert widths("fat-tree:1024,bandwidth=100Gbit,taper=4") == {"nic": 12.5e9, "leaf": 100e9}
    assert widths("fat-tree:8192,bandwidth=8GB,taper=2")["spine"] == 8e9 * 32 * 32 / 2


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("flat:3", (0, 1, 2)),
        ("boxes:2+2+1", ((0, 1), (2, 3), (4,))),
        ("fat-tree:8,hosts=2,down=1", None),
        ("sites:2x4,hosts=2", (((0, 1), (2, 3)), ((4, 5), (6, 7)))),
        ("torus:2x2x2", (((0, 1), (2, 3)), ((4, 5), (6, 7)))),
        ("rails:4x2,pod=2", (((0, 1), (2, 3)), ((4, 5), (6, 7)))),
        ("dragonfly:2x2x2", (((0, 1), (2, 3)), ((4, 5), (6, 7)))),
    ],
)
def test_groups(text, groups):
    if groups is None:
        with pytest.raises(InvalidArgument, match="at least 2"):
            generate(text)
    else:
        assert generate(text).groups == groups


def test_degraded_cables():
    whole, broken = generate("boxes:4x8"), generate("boxes:4x8,degrade=nic*3@0.25")
    lost = np.flatnonzero(whole.links.bandwidth != broken.links.bandwidth)
    assert len(lost) == 6 and (broken.links.bandwidth[lost] == whole.links.bandwidth[lost] / 4).all()
    assert {broken.kinds[kind] for kind in broken.links.kind[lost]} == {"nic"}
    assert broken.links.source[lost][:3].tolist() == [0, 10, 21]  # spread over all 32
    assert broken.period == 32 and generate("boxes:4x8,degrade=nic@0.5").period == 8
    one = generate("boxes:4x8,degrade=rank 3..switch@0.5,degrade=inside*10%@0.5")
    assert (one.links.bandwidth != whole.links.bandwidth).sum() == 2 + 2 * 3


def test_cards_of_two_speeds():
    topology = generate("boxes:4x2,speeds=1+0.5,reduce=1TB")
    assert topology.reduce_rate.tolist() == [1e12] * 4 + [5e11] * 4
    assert topology.ends([0, 4, 0], [2, 6, 4]).bandwidth.tolist() == [50e9, 25e9, 25e9]
    assert topology.period == 8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mesh:4", "there are no machines 'mesh'; there are flat:RANKS, fat-tree:RANKS"),
        ("flat", "there is no shape: write flat:RANKS"),
        ("flat:0", "'0' is not a whole number of 1 or more: write flat:RANKS"),
        ("torus:4xx", "'' is not a whole number"),
        ("rails:8", "has 1 numbers and must have 2: write rails:HOSTSxRANKS"),
        ("flat:8,taper=2", "'taper=2' is no setting of flat, which has bandwidth, latency, speeds, degrade, reduce"),
        ("flat:8,bandwidth", "'bandwidth' is no setting"),
        ("flat:8,bandwidth=100", "bandwidth: '100' is not a bandwidth, such as 400Gbit, 12.5GB or inf; units: B, bit"),
        ("flat:8,bandwidth=0GB", "is not a bandwidth"),
        ("flat:8,latency=5m", "latency: '5m' is not a time, such as 1.5us, 300ns or 10ms; units: ns, us, ms, s"),
        ("fat-tree:8,taper=x", "taper: 'x' is not a number above 0"),
        ("sites:2x6,hosts=4", "6 ranks of a site cannot be on hosts of 4"),
        ("dragonfly:9x2x1,ports=1", "do not join 9 groups: there must be 4"),
        ("flat:8,degrade=nic@0.5", "no links of the kind 'nic'; there are port"),
        ("flat:8,degrade=port*9@0.5", "there are 8 cables of the kind port, not 9"),
        ("flat:8,degrade=port", "write KIND@PART"),
        ("flat:8,degrade=rank 1..rank 2@0.5", "no cable joins 'rank 1' and 'rank 2'"),
        ("flat:8,degrade=rank 1..leaf@0.5", "there is no 'leaf'; there are 'rank 0' to 'switch 8'"),
    ],
)
def test_wrong_texts_are_told_what_is_wrong(text, sentence):
    with pytest.raises(InvalidArgument) as caught:
        generate(text)
    assert sentence in str(caught.value) and text in str(caught.value)


def test_units():
    topology = generate("flat:2,bandwidth=100Gbit/s,latency=3us")
    assert topology.ends([0], [1])[:2] == (pytest.approx(3e-6), 12.5e9)


def test_load_takes_files_and_texts():
    assert load("flat:4").size == 4 and load(EXAMPLES[0]).size > 1
    assert load(HERE / "pcie.xml").name == "pcie.xml"
    with pytest.raises(InvalidArgument, match=r"a TOML file takes no settings"):
        load("x.toml,hosts=2")
    with pytest.raises(InvalidArgument, match="'ranks=2' is no setting of an XML file"):
        load("x.xml,ranks=2")
    with pytest.raises(InvalidArgument, match="hosts: '0' is not a whole number"):
        load("x.xml,hosts=0")
