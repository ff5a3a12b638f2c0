import csv
import subprocess
import sys

import numpy as np
import pytest

from faultlens.data.images import open_images
from faultlens.data.world import export as module
from faultlens.data.world.export import FACTS, export, is_export
from faultlens.data.world.names import ATTRIBUTES
from faultlens.data.world.render import render
from faultlens.data.world.scene import Recipe, Scene, scenes
from faultlens.errors import InputError, StoreError

N, SEED = 150, 11


@pytest.fixture(scope="module")
def pictures():
    return [render(scene) for scene in scenes(N, SEED)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("user") / "world", N, SEED, has_masks=True)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_reads_back_as_images_in_order(folder, pictures):
    source = open_images(folder / "world.csv")
    assert len(source) == N
    for i, picture in enumerate(pictures):
        np.testing.assert_array_equal(np.asarray(source.load(i)), picture.pixels)
        assert source.class_names[source.labels[i]] == picture.scene.label
        assert source.names[i] == f"{picture.scene.label}/{i:05d}.png"
    for k, attribute in enumerate(ATTRIBUTES):
        visible = [p.attributes[k] for p in pictures]
        np.testing.assert_array_equal(source.attributes[attribute], visible)


def test_the_folder_reads_back_with_the_same_labels(folder, pictures):
    source = open_images(folder)
    assert len(source) == N
    for i, name in enumerate(source.names):
        picture = pictures[int(name[-9:-4])]
        assert source.class_names[source.labels[i]] == picture.scene.label
        np.testing.assert_array_equal(np.asarray(source.load(i)), picture.pixels)


def test_every_fact_is_true(folder, pictures):
    table = rows(folder / "world.csv")
    assert list(table[0]) == ["path", "class", *FACTS]
    assert len(FACTS) == 18 + 6 + 10 + 4 + 2 + 1 + 1
    lights = {"dark": "dark", "bright light": "bright", "warm light": "warm", "cold light": "cold"}
    for row, picture in zip(table, pictures, strict=True):
        scene = picture.scene
        true = {c for c in FACTS if row[c] == "1"}
        assert true <= set(FACTS)
        assert scene.background in true
        assert scene.color in true
        assert ("watermark" in true, "mirrored" in true) == (scene.watermark, scene.is_mirrored)
        assert {lights[c] for c in true if c in lights} == {scene.light} - {"neutral"}
        assert true & {"pole", "leaves"} == {scene.occluder} - {None}
        assert sum(row[c] == "1" for c in FACTS[18:34]) == 2  # one background, one colour


def test_scenes_are_told_exactly(folder, pictures):
    for row, picture in zip(rows(folder / "scenes.csv"), pictures, strict=True):
        told = Scene(
            label=row["class"],
            attributes=frozenset(row["attributes"].split()),
            color=row["color"],
            background=row["background"],
            light=row["light"],
            occluder=row["occluder"] or None,
            watermark=row["watermark"] == "1",
            size=float(row["size"]),
            angle=float(row["angle"]),
            is_mirrored=row["mirrored"] == "1",
            shift=(float(row["shift_x"]), float(row["shift_y"])),
            seed=int(row["seed"]),
        )
        assert told == picture.scene


def test_masks_unpack_to_where_attributes_are(folder, pictures):
    masks = np.load(folder / "masks.npy", mmap_mode="r")
    assert (masks.shape, masks.dtype) == ((N, 18, 64, 8), np.uint8)
    for i in (0, 64, N - 1):
        np.testing.assert_array_equal(np.unpackbits(masks[i], axis=-1), pictures[i].masks)


def test_workers_change_nothing(folder, tmp_path):
    steps = []
    other = export(
        tmp_path / "world", N, SEED,
        workers=2, has_masks=True, progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(64, N), (128, N), (N, N)]
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_a_recipe_is_followed_and_remembered(tmp_path):
    recipe = Recipe(classes=("dog", "car"), backgrounds=("snow",), marked=0.0)
    out = export(tmp_path / "world", 20, recipe=recipe)
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"dog", "car"}
    assert {row["background"] for row in rows(out / "scenes.csv")} == {"snow"}
    assert not (out / "masks.npy").exists()
    assert is_export(out, 20, recipe=recipe)
    assert not is_export(out, 20)
    assert not is_export(out, 20, seed=1, recipe=recipe)
    assert not is_export(out, 21, recipe=recipe)
    assert not is_export(tmp_path, 20, recipe=recipe)


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    assert is_export(export(tmp_path / "empty", 2), 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out must be a new or empty folder, got .*full'"):
        export(tmp_path / "full", 2)
    with pytest.raises(InputError, match="a file; give another name"):
        export(tmp_path / "full" / "thesis.txt", 2)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("values", "message"),
    [((0,), "n must be at least 1, got 0"), ((-3,), "got -3"), ((3, -1), "seed must be at least")],
)
def test_numbers_out_of_range_are_refused(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        export(tmp_path / "world", *values)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="must be writable, got Not a directory"):
        export(tmp_path / "file" / "world", 2)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, error):
    def fail_late(scene):
        if len(list(tmp_path.rglob("*.png"))) == 5:
            raise error
        return render(scene)

    monkeypatch.setattr(module, "render", fail_late)
    with pytest.raises(error):
        export(tmp_path / "world", 20)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_with_workers_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "world", 200, workers=2, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_no_folder_of_that_name_and_the_same_call_works(tmp_path):
    code = (
        "from faultlens.data.world.export import export\n"
        f"export({str(tmp_path / 'world')!r}, 100000, progress=lambda *a: print(a, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"(64, 100000)\n"
    process.kill()
    process.communicate()
    assert not (tmp_path / "world").exists()
    assert len(open_images(export(tmp_path / "world", 3))) == 3
