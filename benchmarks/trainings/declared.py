"""Programs of the training benchmark: read the declarations, make their data."""

import copy
import importlib.util
import json
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml

Declaration = dict[str, Any]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "trainbugs"
#: What an override may replace, besides the arguments of the data recipe.
OVERRIDABLE = ("layers", "loss", "optimizer", "batch_size", "epochs", "preprocess")


@dataclass(frozen=True)
class Data:
    """A training set: channels last, float32; `task` says how a score is computed."""

    inputs: np.ndarray
    targets: np.ndarray
    task: str


@dataclass(frozen=True)
class Program:
    """A declared program and what a real run of its two versions did."""

    number: int
    name: str
    group: str
    buggy: Declaration
    fixed: Declaration
    verified: Declaration

    @property
    def fails(self) -> bool:
        """Whether the buggy version really fails (groups A, B, C)."""
        return self.group in "ABC"

    @property
    def places(self) -> list[int | str]:
        return list(self.buggy["fault_layer"])

    @property
    def kinds(self) -> list[str]:
        return [self.buggy["fault_kind"], *self.buggy["fault_kinds_also"]]

    def version(self, name: str) -> Declaration:
        return self.buggy if name == "buggy" else self.fixed

    def trains(self, name: str) -> bool:
        """Whether silence is asked of this version (fixed A and B, D, E, the control)."""
        return self.group in "DEX" or (name == "fixed" and self.group in "AB")


def overridden(declaration: Declaration) -> Declaration:
    """The fixed version: the published overrides put over the buggy declaration."""
    fixed = copy.deepcopy(declaration)
    overrides = fixed["fix"]["overrides"]
    for key in OVERRIDABLE:
        if key in overrides:
            fixed[key] = overrides[key]
    fixed["dataset"]["args"].update(overrides.get("dataset_args", {}))
    return fixed


def read(path: Path) -> Program:
    declaration = yaml.safe_load(path.read_text())
    verified = declaration["verified"]
    group = "X" if verified["group"] == "control" else verified["group"][0]
    return Program(
        declaration["number"],
        path.stem,
        group,
        declaration,
        overridden(declaration),
        verified,
    )


def programs(numbers: list[int] | None = None) -> list[Program]:
    """All declared programs, or those of the numbers given."""
    found = [read(path) for path in sorted((SHARED / "bugs").glob("*.yaml"))]
    return [p for p in found if numbers is None or p.number in numbers]


@lru_cache(maxsize=1)
def builders() -> ModuleType:
    spec = importlib.util.spec_from_file_location("data_builders", SHARED / "data_builders.py")
    if spec is None or spec.loader is None:
        sys.exit(f"the declared programs are not at {SHARED}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=2)
def built(builder: str, seed: int, args: str) -> tuple[np.ndarray, np.ndarray, str]:
    """The data of a recipe; those of both versions and of their repairs are mostly the same."""
    inputs, targets, task = getattr(builders(), builder)(seed, **json.loads(args))
    for array in (inputs, targets):
        array.setflags(write=False)
    return inputs, targets, task


def scaled(x: np.ndarray, how: str) -> np.ndarray:
    """Columns (of tables) or the whole (of images and sequences) brought to a common scale."""
    axes = (0,) if x.ndim == 2 else tuple(range(x.ndim))
    wide = x.astype(np.float64)
    if how == "standardise":
        shift, size = wide.mean(axes, keepdims=True), wide.std(axes, keepdims=True)
    elif how == "minmax":
        shift = wide.min(axes, keepdims=True)
        size = wide.max(axes, keepdims=True) - shift
    else:
        raise ValueError(f"unknown scaling {how!r}")
    return np.asarray((wide - shift) / np.where(size > 0, size, 1), np.float32)


def data_of(declaration: Declaration, seed: int) -> Data:
    """The declared data set of one seed, after the preprocessing a repair may ask for."""
    recipe = declaration["dataset"]
    inputs, targets, task = built(recipe["builder"], seed, json.dumps(recipe["args"]))
    preprocess = declaration.get("preprocess") or {}
    if preprocess.get("inputs", "none") != "none":
        inputs = scaled(inputs, preprocess["inputs"])
    if preprocess.get("targets", "none") != "none":
        targets = scaled(targets, preprocess["targets"])
    return Data(np.array(inputs, np.float32), np.array(targets, np.float32), task)
