import subprocess
import sys

import pytest

import faultlens

HEAVY = ("torch", "torchvision", "transformers", "onnxruntime", "onnx", "plotly", "scipy", "PIL")


def loaded_after(code: str) -> list[str]:
    """Heavy packages in a fresh interpreter after some code."""
    probe = f"{code}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return eval(out.stdout)  # our own print


def test_importing_faultlens_loads_nothing_heavy():
    assert loaded_after("import faultlens") == []


def test_the_test_above_can_fail():
    assert loaded_after("import faultlens; faultlens.Heatmap") == ["scipy"]


def test_the_core_never_loads_torch():
    code = "import faultlens; faultlens.DebugSession; faultlens.load_model; faultlens.load_vlm"
    assert not {"torch", "torchvision", "transformers"} & set(loaded_after(code))


def test_public_names_are_sorted_few_and_all_there():
    assert faultlens.__all__ == sorted(faultlens.__all__)
    assert len(faultlens.__all__) <= 25
    assert dir(faultlens) == faultlens.__all__
    for name in faultlens.__all__:
        assert getattr(faultlens, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'DebugSesion'"):
        _ = faultlens.DebugSesion
