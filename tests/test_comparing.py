import json

import numpy as np
import pytest
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.comparing import compare
from faultlens.concepts import ConceptFile
from faultlens.data.images import ImageSource
from faultlens.errors import InputError
from faultlens.regressions import paired_shifts
from faultlens.report.compared import render_compared
from faultlens.session import DebugSession

runner = CliRunner()


def debug(model, out, source=None, vlm=None):
    return DebugSession.run(
        model, images=source or planted.source(400), vlm=vlm or planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=out,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    debug(planted.healthy(), root / "healthy")
    debug(planted.swapped_head(), root / "swapped")
    debug(planted.healthy(), root / "tomorrow", planted.source(400, seed=7))
    return root


def changes(found):
    return {c.name: c for c in found.changes}


def test_a_broken_head_is_a_regression_of_its_classes(root):
    found = compare(root / "healthy", root / "swapped")
    assert found.is_paired
    worse = {c.name for c in found.regressions}
    assert worse == {"all images", "ship", "plane"}
    assert found.exit_code == 1
    ship = changes(found)["ship"]
    rows = [[r for r in s.images if r["label"] == "ship"] for s in (found.first, found.second)]
    right = [{r["name"] for r in side if r["prediction"] == "ship"} for side in rows]
    assert (ship.n_gained, ship.n_lost) == (len(right[1] - right[0]), len(right[0] - right[1]))
    assert any(f.kind == "localization.head" for f in found.new)
    assert not any(f.severity == "fault" for f in found.gone)
    # The encoder is the same, and so is what its embedding says.
    assert not any(d.significant().any() for d in found.heatmaps.values())
    assert found.pictures == {}


def test_the_way_back_is_better_and_clean(root):
    found = compare(root / "swapped", root / "healthy")
    assert (found.exit_code, found.regressions) == (0, ())
    assert changes(found)["ship"].verdict == "better"
    assert any(f.kind == "localization.head" for f in found.gone)


def test_other_pictures_of_the_same_name_are_not_paired(root):
    found = compare(root / "healthy", root / "tomorrow")
    names = [{r["name"] for r in s.images} for s in (found.first, found.second)]
    assert names[0] & names[1]
    assert not found.is_paired
    assert found.exit_code == 0
    assert set(found.pictures) == set(planted.CLASSES)
    assert not any(d.significant().any() for d in found.pictures.values())
    assert changes(found)["all images"].n_lost is None


def test_changed_pictures_show_in_both_views(root, tmp_path):
    pixels, labels = planted.draw(400, seed=9)
    at = planted.CONCEPTS.index("water")
    wet = slice(at * planted.CELL, (at + 1) * planted.CELL)
    ships = labels == planted.CLASSES.index("ship")
    pixels[ships, :, wet] = 60
    later = debug(planted.healthy(), tmp_path / "dry",
                  ImageSource.from_arrays(pixels, labels, planted.CLASSES))  # fmt: skip
    found = compare(root / "healthy", later)
    for deltas in (found.pictures, found.heatmaps):
        if "water" in found.concepts:
            place = found.concepts.index("water")
            assert deltas["ship"].significant()[place].sum() >= 2
            assert (deltas["ship"].values[place][deltas["ship"].significant()[place]] < 0).all()
    assert not found.pictures["cat"].significant().any()


def test_only_shared_images_are_compared_where_most_are_shared(root, tmp_path):
    pixels, labels = planted.draw(400)
    part = ImageSource.from_arrays(pixels[:300], labels[:300], planted.CLASSES)
    later = debug(planted.swapped_head(), tmp_path / "part", part)
    found = compare(root / "healthy", later)
    assert found.is_paired
    assert changes(found)["all images"].n_first == len(later.images)
    assert any("only these are compared" in r for r in found.remarks)


def test_another_vlm_leaves_heatmaps_out(root, tmp_path):
    other = planted.CellVlm(content_hash="cells-2")
    later = debug(planted.healthy(), tmp_path / "vlm", vlm=other)
    found = compare(root / "healthy", later)
    assert found.heatmaps == {}
    assert any("vision-language models differ" in r for r in found.remarks)
    assert any("was not checked" in r for r in found.remarks)
    assert found.is_paired


def test_wrong_input(root):
    with pytest.raises(InputError, match="sessions must be two"):
        compare(root / "healthy", root / "healthy")
    with pytest.raises(InputError, match="level must be in"):
        compare(root / "healthy", root / "swapped", 1.5)


def test_the_page_and_the_command(root, tmp_path):
    result = runner.invoke(
        app, ["diff", str(root / "healthy"), str(root / "swapped"), "--out", str(tmp_path / "d")]
    )
    assert result.exit_code == 1, result.output
    assert "significantly worse: all images" in result.stdout
    assert "new: " in result.stdout
    page = (tmp_path / "d" / "diff.html").read_text()
    assert "3 regressions" in page
    assert "<script" not in page
    document = json.loads((tmp_path / "d" / "diff.json").read_text())
    assert document["exit_code"] == 1
    back = runner.invoke(
        app, ["diff", str(root / "swapped"), str(root / "healthy"), "--json",
              "--out", str(tmp_path / "b")],
    )  # fmt: skip
    assert back.exit_code == 0
    assert json.loads(back.stdout)["page"] == str(tmp_path / "b" / "diff.html")
    assert "No significant regression" in (tmp_path / "b" / "diff.html").read_text()


def test_a_matrix_draws_what_changed(root):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, 3))
    second = first - np.array([9.0, 0.0, 0.0])
    deltas = paired_shifts(first, second, {"ship": np.arange(40)}, ("water", "sails", "fur"))
    document = compare(root / "healthy", root / "swapped").to_json()
    page = render_compared(document, deltas, {})
    assert page.count('<rect class="down"') == page.count('<rect class="up"') == 2
    assert "<title>water &gt; sails: −" in page
