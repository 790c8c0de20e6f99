"""Machines from TOML and from NCCL's XML: what is shipped and documented loads, and what is wrong is named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from machines import EXAMPLES, HERE, all_pairs, walk

from pycomm.errors import InvalidArgument
from pycomm.topology import check_period, load
from pycomm.topology.routing import Graph, Tree

DOCUMENTED = re.findall(r"```toml\n(.*?)```", (HERE.parents[1] / "docs" / "topology.md").read_text(), re.S)


@pytest.fixture
def write(tmp_path):
    def make(text, name="machine.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_load(path):
    topology = load(path)
    walk(topology, *all_pairs(topology))
    check_period(topology)


@pytest.mark.parametrize("text", DOCUMENTED)
def test_what_is_documented_loads(write, text):
    topology = load(write(text))
    walk(topology, *all_pairs(topology))


def test_there_are_examples():
    assert len(EXAMPLES) >= 4 and len(DOCUMENTED) >= 3


def test_hosts_switches_and_links_by_name():
    topology = load(next(path for path in EXAMPLES if path.stem == "two_sites"))
    assert isinstance(topology.routing, Tree) and topology.size == 28 and topology.period == 28
    assert topology.groups[1] == ((16, 17, 18, 19), (20, 21, 22, 23), (24, 25, 26, 27))
    ends = topology.ends([0, 0], [4, 27])
    assert ends.bandwidth.tolist() == [25e9, 1.25e9]
    assert ends.latency == pytest.approx([0.4e-6 + 2.7e-6, 0.2e-6 + 2.7e-6 + 5e-3 + 0.25e-6])


def test_one_way_cables_and_free_form_routing():
    topology = load(next(path for path in EXAMPLES if path.stem == "odd"))
    assert isinstance(topology.routing, Graph)
    there, back = topology.ends([0, 6 + 1], [6 + 1, 0]).bandwidth
    assert there == 12.5e9 and back in (3.125e9, 12.5e9)


ALIKE = """
[[host]]
name = "h"
count = 4
ranks = 2
cores = 1
reduce = "10GB"
speed = 0.5
[[switch]]
[[link]]
from = "h*"
to = "switch"
bandwidth = "10GB"
latency = "1us"
"""


def test_alike_hosts_have_a_period_and_few_cores_share_reductions(write):
    topology = load(write(ALIKE))
    assert topology.period == 2 and topology.name == "machine"
    assert (topology.reduce_rate == 10e9 / 2 * 0.5).all()
    assert topology.links.bandwidth.max() == 450e9 * 0.5


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("ranks = 2", "", "[[host]] number 1 needs ranks"),
        ("ranks = 2", 'ranks = "x"', "[[host]] number 1: ranks: 'x' is not a whole number of 1 or more"),
        ("ranks = 2", "ranks = []", "ranks = [] is of the wrong type"),
        ("cores = 1", "core = 1", "[[host]] number 1: there is no 'core' here: it may have name, count, ranks, cores"),
        ('"10GB"\nlatency', '"fast"\nlatency', "[[link]] number 1: bandwidth: 'fast' is not a bandwidth"),
        ('"10GB"\nlatency', '"inf"\nlatency', "a link's bandwidth is finite"),
        ('from = "h*"', 'from = "g*"', "nothing is called 'g*'; there are h0/0, h0/1, h1/0"),
        ('from = "h*"', 'from = "h[012]"', "there is no way from rank 0 to rank 6"),
        ("[[switch]]", '[[switch]]\nname = "h1"', "there are two things called 'h1'"),
        ("[[switch]]", '[[switch]]\nname = "a/b"', "must have letters, and none of /"),
        ("[[switch]]", "[switch]", "write [[switch]], once for each"),
        ("[[switch]]", "[[switches]]", "nothing is called 'switch'"),
        ("[[switch]]", "[[switch", "TOML"),
        (ALIKE, "", "there are no ranks"),
        (ALIKE, 'generator = "flat:0"', "'flat:0': '0' is not a whole number"),
        (ALIKE, 'generator = "flat:2"\nranks = 4', "the file: there is no 'ranks' here: it may have name, generator"),
        (ALIKE, 'generator = "flat:2"\n[[degrade]]\nkind = "port"', "[[degrade]] number 1 needs keeps"),
        (
            ALIKE,
            'generator = "flat:2"\n[[degrade]]\nkeeps = 0.5\nlink = ["rank 0"]',
            "must be the names of two ends",
        ),
    ],
)
def test_wrong_toml_is_told_what_is_wrong(write, old, new, sentence):
    assert old in ALIKE
    path = write(ALIKE.replace(old, new))
    with pytest.raises(InvalidArgument) as caught:
        load(path)
    if sentence != "TOML":
        assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named():
    for name in ("nowhere.toml", "nowhere.xml"):
        with pytest.raises(InvalidArgument, match=f"{name}: .*No such file"):
            load(name)


def kinds_of(topology, source, target):
    return [topology.kinds[kind] for kind in topology.links.kind[topology.paths([source], [target]).links]]


def test_a_box_with_nvswitch():
    topology = load(HERE / "dgx.xml")
    walk(topology, *all_pairs(topology))
    check_period(topology)
    assert topology.size == 8 and topology.kinds == ("pci", "sys", "nvlink") and set(topology.host) == {0}
    assert kinds_of(topology, 0, 7) == ["nvlink", "nvlink"]
    assert topology.ends([0], [7]).bandwidth[0] == pytest.approx(18 * 20.6e9)
    assert topology.ends([0], [7]).latency[0] == pytest.approx(0.6e-6)


def test_boxes_are_joined_through_their_network_cards():
    topology = load(f"{HERE / 'dgx.xml'},hosts=3")
    walk(topology, *all_pairs(topology))
    check_period(topology)
    assert topology.size == 24 and topology.period == 8 and topology.name == "dgx.xml,hosts=3"
    assert topology.host.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert kinds_of(topology, 3, 12) == ["pci", "pci", "net", "net", "pci", "pci"]
    ends = topology.ends([3], [12])
    assert ends.bandwidth[0] == pytest.approx(48e9) and ends.latency[0] == pytest.approx(2.7e-6)
    labels = [topology.label(int(v)) for v in topology.links.target[topology.paths([3], [12]).links]]
    assert labels[1] == "0/nic 0000:42:00.0" and labels[3] == "1/nic 0000:52:00.0"  # each card's own


def test_a_box_without_nvlink():
    topology = load(HERE / "pcie.xml")
    assert kinds_of(topology, 0, 1) == ["pci", "pci"] and kinds_of(topology, 0, 3) == ["pci", "sys", "pci"]
    assert topology.ends([0, 0], [1, 3]).bandwidth == pytest.approx([24e9, 16e9])
    assert topology.period == 2
    two = load(f"{HERE / 'pcie.xml'},hosts=2")
    assert two.ends([0], [4]).bandwidth[0] == pytest.approx(12.5e9)


def test_cards_in_the_order_of_their_ranks_and_without_them(write):
    text = (HERE / "pcie.xml").read_text()
    turned = text.replace('rank="1"', 'rank="x"').replace('rank="2"', 'rank="1"').replace('rank="x"', 'rank="2"')
    assert kinds_of(load(write(turned, "t.xml")), 0, 1) == ["pci", "sys", "pci"]
    assert load(write(text.replace('rank="3"', 'rank="-1"'), "s.xml")).size == 3
    bare = re.sub(r"<gpu [^>]*/>|<nic>|</nic>|<net [^>]*/>", "", text)
    topology = load(f"{write(bare, 'bare.xml')},hosts=2")
    assert topology.size == 8 and topology.ends([0], [4]).bandwidth[0] == pytest.approx(24e9)


def test_nvlinks_from_card_to_card(write):
    text = (HERE / "pcie.xml").read_text()
    for one, other in (("01", "05"), ("05", "01")):
        gpu = re.search(rf'busid="0000:{one}:.*?(<gpu [^>]*)/>', text, re.S)
        nvlink = f'{gpu[1]}><nvlink target="0000:{other}:00.0" count="4" tclass="0x030200"/></gpu>'
        text = text.replace(f"{gpu[1]}/>", nvlink)
    topology = load(write(text, "pair.xml"))
    assert kinds_of(topology, 0, 1) == ["nvlink"]
    assert topology.ends([0], [1])[:2] == (pytest.approx(0.6e-6), pytest.approx(80e9))
    assert kinds_of(topology, 1, 2) == ["pci", "sys", "pci"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("<system", "<graph", "mismatched tag"),
        ('busid="0000:01:00.0" ', "", "a <pci> has no busid"),
        ('link_width="16"', 'link_width="wide"', 'a <pci> has link_width="wide", which is no number'),
    ],
)
def test_wrong_xml_is_told_what_is_wrong(write, old, new, sentence):
    text = (HERE / "pcie.xml").read_text()
    with pytest.raises(InvalidArgument, match=re.escape(sentence)):
        load(write(text.replace(old, new), "x.xml"))


def test_other_xml_is_refused(write):
    with pytest.raises(InvalidArgument, match="must begin with <system>"):
        load(write("<graphs/>", "x.xml"))
    with pytest.raises(InvalidArgument, match="there is no card"):
        load(write("<system><cpu numaid='0'/></system>", "x.xml"))
    alone = re.sub(r'<pci busid="0000:.0:.*?</pci>', "", (HERE / "pcie.xml").read_text(), flags=re.S)
    with pytest.raises(InvalidArgument, match="several hosts need a network"):
        load(f"{write(alone, 'alone.xml')},hosts=2")


def test_numbers_are_those_of_nccl():
    topology = load(HERE / "dgx.xml")
    rates = {
        kind: np.unique(topology.links.bandwidth[topology.links.kind == i]) for i, kind in enumerate(topology.kinds)
    }
    assert rates["pci"].tolist() == [48e9] and rates["sys"].tolist() == [22e9]
