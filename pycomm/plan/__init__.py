"""What communication costs in a step of training a model on a described machine (docs/plan.md)."""

from .model import Model, Training
from .price import Pricer
from .read import Plan, read_plan
from .step import Row, Step, step
from .volumes import Transfer, state, transfers
from .whatif import Change, changes

__all__ = ["Change", "Model", "Plan", "Pricer", "Row", "Step", "Training", "Transfer", "changes", "read_plan", "state",
           "step", "transfers"]  # fmt: skip
