"""The documentation is true: its programs run, its tables are what the code says, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm import knobs
from pycomm.__main__ import main

ROOT = Path(__file__).parents[2]
TEXTS = sorted(path for pattern in ("*.md", "docs/*.md", "transports/*.md", "perf/*.md") for path in ROOT.glob(pattern))
PROGRAM = re.compile(r"<!-- file: (\S+); run: (.*?) -->\n```\w*\n(.*?)```", re.S)
FILE = re.compile(r"`((?:csrc|pycomm|algorithms|transports|perf|tests|docs)/[\w./-]+\.(?:c|h|py|md|sh|ini))`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def name_of(value: object) -> str:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else str(value)


def programs() -> list[tuple[Path, str, str, str]]:
    """Return the programs in the texts: where each is, the name of its file, how it is run, and its lines."""
    return [(path, *found) for path in TEXTS for found in PROGRAM.findall(path.read_text())]


@pytest.mark.parametrize("program", programs(), ids=lambda program: f"{program[0].name}-{program[1]}")
def test_a_program_runs_as_printed(program: tuple[Path, str, str, str], tmp_path: Path):
    _, file, command, lines = program
    if "torchrun" in command and importlib.util.find_spec("torch") is None:
        pytest.skip("there is no torchrun: torch is not installed (pip install torch)")
    (tmp_path / file).write_text(lines)
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = ["sh", "-c", command]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for expected in re.findall(r"# (\[.*\])$", lines, re.M):
        assert expected in done.stdout


def test_there_are_programs():
    assert len([path for path, *_ in programs() if path.name == "README.md"]) >= 3


def test_what_is_generated_is_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.outputs().items():
        assert path.read_text() == text, f"{path.name} is out of date: python -P docs/generate.py"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path: Path):
    for target in LINK.findall(path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_files_that_are_named_exist(path: Path):
    for name in FILE.findall(path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_commands_are_those_of_the_readme(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    there = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.M))
    named = set(re.findall(r"^\| `pycomm (\w+)", (ROOT / "README.md").read_text(), re.M))
    assert there == named


def test_no_setting_is_read_that_is_not_declared():
    declared = {knob.name for knob in knobs.KNOBS}
    for path in [*ROOT.glob("pycomm/*.py"), *ROOT.glob("perf/*.py"), *ROOT.glob("*.md")]:
        assert set(re.findall(r"\bPYCOMM_[A-Z_]+[A-Z]\b", path.read_text())) <= declared, path
