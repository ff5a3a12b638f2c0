import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from faultlens.errors import SpecSyntaxError
from faultlens.spec.formula import holds
from faultlens.spec.ground import Scope, ground
from faultlens.spec.parse import parse
from faultlens.spec.predicate import PREDICATES
from faultlens.spec.printer import render
from faultlens.spec.regions import REGIONS

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "con_spec.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```con_spec\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def scope():
    """The classes, concepts and relevance of the demo."""
    text = files("faultlens.assets.demo").joinpath("concepts.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    concepts, classes = tuple(table["concepts"]), tuple(table["classes"])
    relevant = np.array(
        [[c in entry.get("relevant", ()) for c in concepts] for entry in table["classes"].values()]
    )
    return Scope(concepts, classes, np.zeros(len(concepts)), relevant)


def test_there_are_ten_worked_examples_after_the_first_line():
    assert len(BLOCKS) == 11
    assert re.findall(r"^\*\*(\d+)\.", GUIDE, re.MULTILINE) == [str(i) for i in range(1, 11)]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_spec_is_read_printed_and_grounded(block, scope):
    file = parse(block)
    assert parse(render(file)) == file
    specs = list(ground(file, scope))
    assert specs
    x = np.random.default_rng(0).normal(size=(20, len(scope.concepts) + len(scope.classes)))
    for spec in specs:
        assert holds(spec.goal, x).shape == (20,)


def test_the_guide_names_every_case_it_promises(scope):
    (block,) = [b for b in BLOCKS if b.startswith("spec own:")]
    names = [spec.name for spec in ground(parse(block), scope)]
    assert "own[k=dog,a=ears,b=wheels]" in names
    assert len(names) == len(set(names))


def test_the_guide_knows_every_predicate_and_region():
    for name in (*PREDICATES, *REGIONS):
        assert re.search(rf"\b{name}\b", GUIDE), name


def test_the_message_it_shows_is_the_one_that_comes():
    with pytest.raises(SpecSyntaxError) as caught:
        parse("concept long-snout;", "cars.con")
    assert str(caught.value) in GUIDE
