"""The whole plan: what must hold of a step, that changes are edits of the files, errors, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import plans
from pycomm.__main__ import main
from pycomm.errors import InvalidArgument
from pycomm.plan import Pricer, Step, changes, price, read_plan, step
from pycomm.plan.step import unequal_shards

EXAMPLES = Path(__file__).parents[2] / "examples" / "plans"
TWO_SPEEDS = """
topology = "boxes:4x4,nics=4,speeds=1+0.5"
layout = ["tensor", "pipeline", "data"]
[[cards]]
flops = "1TFLOPS"
memory = "16GB"
[[cards]]
flops = "0.5TFLOPS"
memory = "16GB"
"""


def planned(folder: Path, model: str = plans.MODEL, cluster: str = plans.CLUSTER) -> Step:
    plan = read_plan(*plans.write(folder, model, cluster))
    return step(*plan, Pricer(plan.cluster.topology))


def test_a_step_is_computing_bubble_and_what_is_exposed(tmp_path: Path):
    one = planned(tmp_path)
    assert one.seconds == one.compute + one.bubble + sum(row.exposed for row in one.rows)
    assert one.training.micro_batches == 4
    flops = 3 * one.model.flops * 32 * 32 / 16  # of a card: all layers' are shared out, in a step of 32 sequences
    assert one.compute == pytest.approx(flops / 0.5e12)
    inner = sum(row.total for row in one.rows if row.transfer.degree == "tensor")
    assert one.bubble == pytest.approx((one.compute + inner) / 4)
    assert all(row.exposed <= row.total * 1.5 for row in one.rows)
    assert one.efficiency == pytest.approx(one.compute / one.seconds)


def test_without_overlap_all_is_exposed(tmp_path: Path):
    hidden, all_ = planned(tmp_path), planned(tmp_path, plans.MODEL + "[assume]\noverlap = false\n")
    gradients = [next(row for row in one.rows if row.transfer.name == "gradients") for one in (hidden, all_)]
    assert gradients[0].exposed < gradients[0].total
    assert gradients[1].exposed == gradients[1].total


@pytest.mark.parametrize("zero", range(4))
def test_wider_links_never_make_a_step_longer(tmp_path: Path, zero: int):
    model = plans.MODEL.replace("pipeline = 2", f"pipeline = 2\nzero = {zero}")
    times = []
    for width in (10, 20, 40, 80, 160):
        cluster = plans.CLUSTER.replace("nics=4", f"nics=4,bandwidth={width}GB")
        times.append(planned(tmp_path, model, cluster).seconds)
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]


def edited(model: str, cluster: str, edit: str) -> tuple[str, str]:
    """Return both files after what a change tells to write."""
    for part in edit.split("; "):
        if part.startswith("topology: "):
            cluster = re.sub(r'topology = "(.*)"', lambda m, part=part: f'topology = "{m[1]},{part[10:]}"', cluster)
        elif part.startswith("layout"):
            cluster = part + "\n" + re.sub(r"layout = .*", "", cluster)
        else:
            table, settings = re.fullmatch(r"\[(\w+)\] (.*)", part).groups()
            keys = [setting.split(" = ")[0] for setting in settings.split(", ")]
            model = re.sub(rf"^({'|'.join(keys)}) = .*\n", "", model, flags=re.M)
            model = model.replace(f"[{table}]", f"[{table}]\n" + settings.replace(", ", "\n"))
    return model, cluster


def test_each_change_is_an_edit_that_gives_what_it_promises(tmp_path: Path):
    model = plans.MODEL.replace("pipeline = 2", "pipeline = 2\nzero = 1").replace("sequences = 32", "sequences = 64")
    before = planned(tmp_path, model, TWO_SPEEDS)
    found = changes(before, Pricer(before.cluster.topology))
    assert [change.gain for change in found] == sorted((change.gain for change in found), reverse=True)
    kinds = {change.edit.split(" ")[0].rstrip(":") for change in found}
    assert kinds == {"topology", "layout", "[batch]", "[parallel]"}
    for change in found:
        after = planned(tmp_path, *edited(model, TWO_SPEEDS, change.edit))
        assert after.seconds == pytest.approx(change.step.seconds, rel=1e-9), change.edit
        assert change.gain == pytest.approx(1 - after.seconds / before.seconds)


def test_unequal_batches_use_all_cards(tmp_path: Path):
    model = plans.MODEL.replace("sequences = 32", "sequences = 96")
    equal = planned(tmp_path, model, TWO_SPEEDS)
    unequal = planned(tmp_path, model.replace("micro = 2", "micro = 2\nunequal = true"), TWO_SPEEDS)
    assert equal.compute / unequal.compute == pytest.approx(1.5)  # 16 : 8 micro-batches in place of 12 : 12
    assert unequal.efficiency > equal.efficiency


def test_unequal_shards_take_what_the_closed_form_says(tmp_path: Path):
    model = plans.MODEL.replace("pipeline = 2", "pipeline = 1")
    cluster = TWO_SPEEDS.replace("boxes:4x4,nics=4", "flat:16")
    row = next(row for row in planned(tmp_path, model, cluster).rows if row.transfer.name == "gradients")
    n, fast, slow = row.transfer.nbytes, 50e9, 25e9
    wanted = max(2 * 7 * n / (4 * fast + 4 * slow), n / slow)
    assert unequal_shards(row.transfer, row.price) == pytest.approx(max(wanted, row.price.bound.seconds))
    assert row.price.bound.bandwidth_seconds <= wanted
    half = row.transfer._replace(collective="reduce_scatter")
    halved = 7 * n / (4 * fast + 4 * slow)  # received; of what is sent, a slow one sends (1 - w) n / b
    sent = (1 - slow / (4 * fast + 4 * slow)) * n / slow
    assert unequal_shards(half, row.price) == pytest.approx(max(halved, sent, row.price.bound.seconds))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layers = 4", "", r"\[model\] needs layers"),
        ("layers = 4", "layers = 5", r"\[parallel\]: pipeline = 2 does not divide 5 layers"),
        ("layers = 4", "depth = 4\nlayers = 4", r"\[model\]: there is no 'depth' here: it may have style"),
        ("heads = 4", "heads = 5", r"\[model\]: hidden = 64 must be a multiple of heads = 5"),
        ('style = "gpt"', 'style = "bert"', r"\[model\]: style = 'bert' must be one of gpt, llama"),
        ("sequences = 32", "sequences = 33", r"\[batch\]: sequences = 33 is not a multiple of micro x data"),
        ("tensor = 2", "tensor = 2\ndata = 3", r"\[parallel\]: tensor 2 x data 3 x pipeline 2 is 12 cards"),
        ("tensor = 2", "tensor = 2\nzero = 4", r"\[parallel\]: zero = 4 must be 0, 1, 2 or 3"),
        ("tensor = 2", "tensor = 2\nexpert = 2", r"\[parallel\]: expert = 2, but the model has no \[experts\]"),
        ("tensor = 2", "tensor = 0", r"\[parallel\]: tensor: '0' is not a whole number of 1 or more"),
        ("[bytes]", "[assume]\nutilisation = 1.5\n[bytes]", r"\[assume\]: utilisation = 1.5 must not be above 1"),
    ],
)
def test_a_wrong_model_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(InvalidArgument, match=rf"model\.toml: {message}"):
        planned(tmp_path, plans.MODEL.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("boxes:4x4", "box:4x4", r"topology: 'box:4x4,nics=4': there are no machines 'box'"),
        ('flops = "1TFLOPS"', "", r"\[\[cards\]\] number 1 needs flops"),
        ("1TFLOPS", "1THz", r"\[\[cards\]\] number 1: flops: '1THz' is not a speed, such as 989TFLOPS"),
        ("16GB", "16", r"\[\[cards\]\] number 1: memory: '16' is not a size, such as 80GB"),
        ("[[cards]]", 'layout = ["data"]\n[[cards]]', r"layout = \['data'\] must have tensor, data, pipeline"),
        ("[[cards]]", "[[cards]]\nhosts = 3", r"\[\[cards\]\]: hosts = 3 must be given for each kind, and be 4"),
    ],
)
def test_a_wrong_cluster_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(InvalidArgument, match=rf"cluster\.toml: {message}"):
        planned(tmp_path, plans.MODEL, plans.CLUSTER.replace(old, new))


def test_a_topology_file_lies_beside_the_cluster(tmp_path: Path):
    (tmp_path / "machine.toml").write_text('generator = "boxes:4x4,nics=4"\n')
    named = plans.CLUSTER.replace("boxes:4x4,nics=4", "machine.toml")
    assert planned(tmp_path, plans.MODEL, named).seconds == planned(tmp_path).seconds


def test_what_is_too_large_to_simulate_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = planned(tmp_path)
    monkeypatch.setattr(price, "_SHARED", 0)
    monkeypatch.setattr(price, "_ONCE", 0)
    with pytest.raises(InvalidArgument, match=r"no allreduce among 2 ranks of boxes:4x4,nics=4 can be simulated"):
        planned(tmp_path)
    assert changes(before, Pricer(before.cluster.topology)) == []  # all of them need an allreduce


def test_the_command_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    files = [str(file) for file in plans.write(tmp_path)]
    assert main(["plan", *files, "--json", str(tmp_path / "o.json"), "--plot", str(tmp_path / "o.svg")]) == 0
    text, found = capsys.readouterr().out, json.loads((tmp_path / "o.json").read_text())
    for name in ("gradients (allreduce)", "pipeline's bubble", "tokens/s", "what one change would buy"):
        assert name in text
    assert found["seconds"] == found["compute"] + found["exposed"] + found["bubble"]
    assert {row["transfer"] for row in found["rows"]} == {"activations", "stage to stage", "gradients"}
    assert "as it is" in (tmp_path / "o.svg").read_text()
    assert "<dc:date>" not in (tmp_path / "o.svg").read_text()  # the same picture is the same file
    assert main(["plan", str(tmp_path / "none.toml"), files[1]]) == 2
    assert "none.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "cluster", "smaller"),
    [
        ("dense-400b", "two-speeds-10k", ("fat-tree:10000", "fat-tree:160")),
        ("dense-400b", "two-speeds-100k", ("fat-tree:100000", "fat-tree:160")),
        ("moe-8x7b", "two-sites", ("sites:2x256", "sites:2x32")),
        ("llama-7b", "supercomputer-512", ("fat-tree:512", "fat-tree:32")),
    ],
)
def test_the_examples_are_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, cluster: str, smaller: tuple[str, str]
):
    text = (EXAMPLES / f"{cluster}.toml").read_text()
    assert smaller[0] in text
    (tmp_path / "cluster.toml").write_text(text.replace(*smaller))
    assert main(["plan", str(EXAMPLES / f"{model}.toml"), str(tmp_path / "cluster.toml"), "--no-changes"]) == 0
    assert "tokens/s" in capsys.readouterr().out
