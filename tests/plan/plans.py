"""Files for the planner's tests: a small GPT on a small machine, whose keys a test may replace."""

from __future__ import annotations

from pathlib import Path

MODEL = """
[model]
style = "gpt"
layers = 4
hidden = 64
heads = 4
vocabulary = 1000
sequence = 32
[batch]
sequences = 32
micro = 2
[parallel]
tensor = 2
pipeline = 2
[bytes]
weight = 2
gradient = 2
"""
CLUSTER = """
topology = "boxes:4x4,nics=4"
[[cards]]
flops = "1TFLOPS"
memory = "16GB"
"""


def write(folder: Path, model: str = MODEL, cluster: str = CLUSTER) -> tuple[Path, Path]:
    """Write both files and return their names."""
    files = folder / "model.toml", folder / "cluster.toml"
    for file, text in zip(files, (model, cluster), strict=True):
        file.write_text(text)
    return files
