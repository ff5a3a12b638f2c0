from pathlib import Path

import pytest

from faultlens.errors import InputError
from faultlens.gate.config import GateConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "must ask for something, got no threshold"),
        ({"session": "out"}, "must ask for something"),
        ({"acuracy": {"min": 0.9}}, "unknown key 'acuracy'; did you mean 'accuracy'?"),
        ({"accuracy": {"mn": 0.9}}, "unknown key 'accuracy.mn'; did you mean 'min'"),
        ({"class_error": {"max": 0.1, "exept": ["a"]}}, "did you mean 'except'?"),
        ({"monitor": {"file": "m", "auroc": {"mim": 1}}}, "'monitor.auroc.mim'; did you mean"),
        (
            {"check": [{"file": "a.con", "region": "b"}]},
            "unknown key 'check.0.region'; known: 'expl",
        ),
        ({"findings": {"fault": 0}}, "did you mean 'faults'"),
        ({"accuracy": {}}, "'accuracy' is wrong: min or max must be given"),
        ({"accuracy": {"min": 90}}, "shares must be in [0, 1], got 90; 0.9 stands for 90 %"),
        ({"accuracy": {"min": 0.9, "max": 0.1}}, "min must be at most max"),
        ({"accuracy": {"min": 0.9}, "session": "a", "debug": "b"}, "session and debug exclude"),
        ({"accuracy": {"min": 0.9}, "judge": "bounds"}, "'judge' is wrong"),
        ({"monitor": {"file": "m"}}, "at least one threshold must be given"),
        ({"findings": {"faults": -1}}, "'findings.faults' is wrong"),
    ],
)
def test_mistakes_are_told_with_their_place(values, message):
    with pytest.raises(InputError) as caught:
        GateConfig.parse(values)
    assert message in str(caught.value)


def test_paths_count_from_the_files_folder(tmp_path):
    (tmp_path / "gate.yaml").write_text(
        "session: out\naccuracy: {min: 0.9}\ncheck: [{file: a.con}]\n"
        "monitor: {file: m.st, session: /abs, caught: {min: 0.5}}\n"
    )
    config = GateConfig.read(tmp_path / "gate.yaml")
    assert config.session == tmp_path / "out"
    assert config.check[0].file == tmp_path / "a.con"
    assert config.monitor.file == tmp_path / "m.st"
    assert config.monitor.session == Path("/abs")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="must be a mapping of thresholds"):
        GateConfig.read(tmp_path / "list.yaml")
