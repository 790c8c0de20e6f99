"""The command `pycomm topo`, as a user types it, and its drawings."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import pytest
from machines import EXAMPLES, HERE

from pycomm.__main__ import main
from pycomm.topology import generate
from pycomm.topology.draw import draw
from pycomm.topology.summary import bisection, diameter

SVG = "{http://www.w3.org/2000/svg}"


def words_of(scene):
    root = ET.fromstring(scene.svg())
    return [text.text for text in root.iter(f"{SVG}text")]


def test_a_summary(capsys):
    assert main(["topo", "fat-tree:64,hosts=8,taper=2,down=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fat-tree:64,hosts=8,taper=2,down=4: 64 ranks, 8 hosts, 9 switches"
    table = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[1:]}
    assert table["nic"] == "8 50 GB/s  1.35 us" and table["inside"] == "64 450 GB/s 300 ns"
    assert table["groups"] == "8 x 8" and table["reduction"] == "free"
    assert table["diameter"] == "4 links, 3.3 us"
    assert table["period"] == "8: ranks r and r + 8 see the same (proved)"


def test_an_error_is_one_sentence(capsys):
    assert main(["topo", "fat-tree:x"]) == 2
    assert capsys.readouterr().err == (
        "pycomm: 'fat-tree:x': 'x' is not a whole number of 1 or more: write fat-tree:RANKS\n"
    )


def test_a_folder_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["topo", "flat:8", "--svg", str(tmp_path / "no" / "x.svg")]) == 2
    assert "x.svg cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["flat:8", str(EXAMPLES[0]), f"{HERE / 'dgx.xml'},hosts=2"])
def test_drawings_are_written(name, tmp_path, capsys):
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    assert main(["topo", name, "--svg", str(svg), "--png", str(png)]) == 0
    assert ET.parse(svg).getroot().tag == f"{SVG}svg"
    assert png.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_png_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["topo", "flat:8", "--png", str(tmp_path / "x.png")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "flat:1", "flat:8", "flat:4000", "fat-tree:1024", "fat-tree:1024,hosts=8,taper=2", "torus:5", "torus:8x8",
        "torus:40x40", "torus:4x4x4", "dragonfly:4x2x1", "dragonfly:33x8x4", "dragonfly:1x1x3", "rails:2x4",
        "rails:128x8", "boxes:2x4,nics=2", "boxes:125x40,nics=4", "boxes:8+8+4+1", "sites:4x256,hosts=8",
    ],
)  # fmt: skip
def test_all_that_is_drawn_lies_on_the_paper(text):
    scene = draw(generate(text))
    root = ET.fromstring(scene.svg())
    assert 300 < scene.width < 3000 and 200 < scene.height < 2000
    for word in root.iter(f"{SVG}text"):
        assert 0 < float(word.get("x")) < scene.width and 0 < float(word.get("y")) <= scene.height
    for box in root.iter(f"{SVG}rect"):
        if box.get("x"):
            assert float(box.get("x")) >= 0 and float(box.get("x")) + float(box.get("width")) <= scene.width


def test_what_is_alike_is_drawn_once_with_its_number():
    words = words_of(draw(generate("fat-tree:1024,hosts=8")))
    assert words.count("32 x") == 4 and "hosts of 8" in words and "leaf 3" in words
    words = words_of(draw(generate("flat:8")))
    assert [w for w in words if w.isdigit()] == list("01234567")


def test_what_is_narrower_is_marked_and_told_of():
    scene = draw(generate("boxes:4x8,degrade=nic*1@0.5"))
    assert any("narrower than others of the kind" in word for word in words_of(scene))
    assert "stroke-dasharray" in scene.svg()
    assert "stroke-dasharray" not in draw(generate("boxes:4x8")).svg()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("flat:8,bandwidth=10GB", 40e9), ("fat-tree:64,down=8,bandwidth=1GB,taper=4", 8e9),
        ("sites:2x8,wan=1GB", 1e9), ("torus:8,bandwidth=1GB", 16 / 10 * 1e9),
    ],
)  # fmt: skip
def test_bisection(text, rate):
    assert bisection(generate(text))[0] == pytest.approx(rate)


def test_diameter():
    assert diameter(generate("torus:8x8"))[0] == 8
    assert diameter(generate("flat:1")) == (0, 0.0, True)
    assert not diameter(generate("fat-tree:2000")).exact
