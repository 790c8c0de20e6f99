"""The commands `verify` and `show`, as a user types them."""

import argparse
import xml.etree.ElementTree as ET

import pytest

from pycomm.commands import schedule as schedule_cli
from pycomm.schedules.registry import listing

OWN = '''
"""An algorithm of one's own."""
from pycomm.schedules.registry import algorithm

@algorithm("broadcast", name="{name}")
def good(v):
    """The root tells everybody, one after the other."""
    for k in range(1, v.size):
        with v.round():
            if v.rank == v.root:
                v.send(0, to=v.root + k)
            elif v.rank == (v.root + k) % v.size:
                v.recv(0, frm=v.root)

def wrong(v):
    with v.round():
        v.send(0, to=v.rank + 1)
        v.reduce(0, frm=v.rank - 1)
'''


@pytest.fixture
def run(capsys):
    def call(*words):
        parser = argparse.ArgumentParser(prog="pycomm")
        schedule_cli.register(parser.add_subparsers(required=True))
        args = parser.parse_args(words)
        status = args.run(args)
        return status, *capsys.readouterr()

    return call


def test_verify_tells_what_an_algorithm_costs(run):
    status, out, err = run("verify", "ring", "-n", "7")
    assert (status, err) == (0, "")
    head, row = out.splitlines()
    assert head.split() == [*schedule_cli.COLUMNS]
    assert row.split() == ["allreduce", "ring", "7", "12", "12", "24", "84", "12/7", "n", "12", "n", "yes"]


def test_verify_all(run):
    status, out, _ = run("verify", "all", "--collective", "all", "-n", "5")
    flat = [entry for entry in listing() if not entry.grouped]
    assert status == 0 and len(out.splitlines()) == 1 + len(flat)
    status, out, _ = run("verify", "hierarchical", "--collective", "all", "-n", "5", "--groups", "2x3")
    assert status == 0 and len(out.splitlines()) == 1 + len(listing()) - len(flat)


def test_verify_a_function_of_a_file(run, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN.format(name="in_a_file"))
    assert run("verify", f"{path}:good", "-n", "5")[0] == 0
    status, out, err = run("verify", f"{path}:wrong", "-n", "3")
    assert (status, out) == (1, "")
    assert err == "wrong allreduce on 3 ranks: at the end rank 0 misses the contribution of rank 1 to chunk 0\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nonsense",), "allreduce has no algorithm 'nonsense'"),
        (("nowhere.py:f",), "there is no Python file 'nowhere.py'"),
        (("ring", "-n", "0"), "--ranks is 0"),
        (("hierarchical", "--groups", "two"), "--groups is 'two'"),
        (("hierarchical", "--groups", "[[0, 1]]"), "name each of the 4 ranks once"),
        (("hierarchical",), "groups are needed"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "show"])
def test_what_is_wrong_is_said_in_a_sentence(run, command, words, sentence):
    status, out, err = run(command, *words)
    assert status != 0 and out == "" and sentence in err and "Traceback" not in err


def test_show_puts_the_two_ends_of_a_message_in_one_row(run):
    status, out, _ = run("show", "binomial", "--collective", "broadcast", "-n", "5", "--root", "1")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["binomial", "broadcast", "on", "5", "ranks"]
    assert ["1", "<-", "1", "->", "0"] in lines


def test_show_tells_what_one_rank_does(run):
    status, out, _ = run("show", "ring", "-n", "3", "--rank", "2")
    assert status == 0
    assert "round 0   send chunk 1 to rank 0\n          reduce chunk 0 from rank 1\n" in out
    assert run("show", "ring", "-n", "3", "--rank", "3")[0] == 1
    assert "combine a temporary like chunk 0 into chunk 0" in run("show", "direct", "-n", "3", "--rank", "0")[1]


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_svg_is_well_formed_and_complete(run, tmp_path, size):
    for entry in listing():
        path = tmp_path / "drawing.svg"
        words = ("show", entry.name, "--collective", entry.collective, "-n", str(size), "--groups", f"2x{size}")
        assert run(*words, "--svg", str(path))[0] == 0
        root = ET.parse(path).getroot()
        space = "{http://www.w3.org/2000/svg}"
        width, height = float(root.get("width")), float(root.get("height"))
        texts = [text.text for text in root.iter(f"{space}text")]
        assert texts[0].startswith(f"{entry.name} {entry.collective} on {size} rank")
        assert {str(rank) for rank in range(size)} <= set(texts)
        for line in root.iter(f"{space}line"):
            assert 0 <= float(line.get("x1")) <= width and 0 <= float(line.get("y2")) <= height
