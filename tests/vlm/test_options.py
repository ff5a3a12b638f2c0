"""What follows a backend's name."""

import pytest

from faultlens.config import RunConfig
from faultlens.errors import InputError
from faultlens.vlm.options import TorchOptions, parse_options, split_target


@pytest.mark.parametrize(
    ("argument", "target", "settings"),
    [
        ("folder", "folder", {}),
        ("a,b", "a,b", {}),
        ("a=b", "a=b", {}),
        ("a,b,device=cpu", "a,b", {"device": "cpu"}),
        ("ViT@w.safetensors, device = cuda:1 ,dtype=float16", "ViT@w.safetensors",
         {"device": "cuda:1", "dtype": "float16"}),
        (",device=cpu", "", {"device": "cpu"}),
    ],
)  # fmt: skip
def test_settings_are_what_has_an_equals_sign_at_the_end(argument, target, settings):
    assert split_target(argument) == (target, settings)


def test_settings_become_options():
    found = parse_options("clip", "x,allow_pickle=true,dtype=bfloat16", "FOLDER")
    assert found == ("x", TorchOptions(allow_pickle=True, dtype="bfloat16"))
    assert parse_options("clip", "x", "FOLDER")[1] == TorchOptions()


def test_a_wrong_setting_is_explained():
    with pytest.raises(InputError, match="vlm must be 'clip:FOLDER', got 'clip:,device=cpu'"):
        parse_options("clip", ",device=cpu", "FOLDER")
    with pytest.raises(InputError, match=r"allow_pickle must be a valid boolean.*got 'perhaps'"):
        parse_options("clip", "x,allow_pickle=perhaps", "FOLDER")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("clip:vit", "clip:{0}/vit"),
        ("clip:vit,device=cpu", "clip:{0}/vit,device=cpu"),
        ("open_clip:ViT-B-16@vit/w.safetensors", "open_clip:ViT-B-16@{0}/vit/w.safetensors"),
        ("clip:some/model,device=cpu", "clip:some/model,device=cpu"),
        ("offline", "offline"),
    ],
)
def test_a_target_counts_from_the_configurations_folder(tmp_path, written, meant):
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "w.safetensors").write_bytes(b"")
    (tmp_path / "run.yaml").write_text(
        f"model: onnx:net.onnx\nimages: photos\nvlm: {written}\nconcepts: c.yaml\nout: out\n"
    )
    assert RunConfig.read(tmp_path / "run.yaml").vlm == meant.format(tmp_path)
