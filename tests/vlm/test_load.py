"""The words after `--vlm`."""

import pytest

from faultlens.errors import InputError
from faultlens.vlm.load import load_vlm


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ofline", r"vlm must be a known name, got 'ofline'; did you mean 'offline'\?"),
        ("", "vlm must be a known name, got ''"),
        ("offline:big", "vlm must be 'offline' alone, got 'offline:big'"),
        ("bridge", "vlm must be 'bridge:FILE.yaml', got no file"),
        ("bridge:", "vlm must be 'bridge:FILE.yaml', got no file"),
        ("bridge:absent.yaml", r"got 'absent\.yaml'"),
    ],
)
def test_wrong_words_are_explained(spec, message):
    with pytest.raises(InputError, match=message):
        load_vlm(spec)
