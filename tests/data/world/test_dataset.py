import numpy as np

from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import CLASSES
from faultlens.data.world.render import render
from faultlens.data.world.scene import scenes


def test_workers_change_nothing():
    drawn = list(scenes(150, seed=1))
    alone, together = render_all(drawn), render_all(drawn, workers=2)
    np.testing.assert_array_equal(alone.pixels, together.pixels)
    np.testing.assert_array_equal(alone.attributes, together.attributes)
    np.testing.assert_array_equal(alone.labels, together.labels)
    assert alone.scenes == together.scenes == tuple(drawn)


def test_rows_are_the_scenes_and_progress_reaches_the_end():
    drawn = list(scenes(70, seed=2))
    steps = []
    drawings = render_all(drawn, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(64, 70), (70, 70)]
    for i in (0, 63, 64, 69):
        picture = render(drawn[i])
        np.testing.assert_array_equal(drawings.pixels[i], picture.pixels)
        np.testing.assert_array_equal(drawings.attributes[i], picture.attributes)
        assert CLASSES[drawings.labels[i]] == drawn[i].label


def test_the_source_holds_the_pictures():
    drawings = render_all(list(scenes(5, seed=3)))
    source = drawings.source()
    assert source.class_names == CLASSES
    np.testing.assert_array_equal(source.labels, drawings.labels)
    np.testing.assert_array_equal(np.asarray(source.load(2)), drawings.pixels[2])
