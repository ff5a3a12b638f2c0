"""A whole session over pictures behind a URL, through the command line."""

import json
import uuid
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.registry import VLMS
from faultlens.remote import place
from faultlens.session import DebugSession

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def _cells_vlm(monkeypatch):
    monkeypatch.setitem(VLMS._table, "cells", "planted:load")


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Model and concepts in a folder, pictures there and in memory."""
    root = tmp_path_factory.mktemp("user")
    planted.save_onnx(planted.swapped_head(), root / "net.onnx")
    planted.save_folder(root / "photos")
    (root / "concepts.yaml").write_text(yaml.safe_dump(planted.concepts_yaml()))
    return root


@pytest.fixture(scope="module")
def url(work):
    """The same pictures behind a URL."""
    folder = f"memory://{uuid.uuid4().hex}/photos"
    for path in (work / "photos").rglob("*.png"):
        (place(folder) / path.relative_to(work / "photos").as_posix()).write_bytes(
            path.read_bytes()
        )
    return folder


def debug(work, images, out):
    return run(
        "debug", "--model", f"onnx:{work / 'net.onnx'}", "--images", images, "--split", "test",
        "--vlm", "cells", "--concepts", work / "concepts.yaml", "--out", out, "--quiet",
    )  # fmt: skip


@pytest.fixture(scope="module")
def session(work, url, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VLMS._table, "cells", "planted:load")
        result = debug(work, url, out)
    assert result.exit_code == 1, result.output
    return out


def settings(folder):
    return json.loads((folder / "session.json").read_text())["config"]


def test_a_session_keeps_the_url_and_finds_what_a_folder_gives(work, url, session, tmp_path):
    assert settings(session)["images"] == url
    assert debug(work, work / "photos", tmp_path).exit_code == 1
    near, far = (json.loads((f / "findings.json").read_text()) for f in (tmp_path, session))
    assert far["findings"] == near["findings"]


def test_a_configuration_file_may_name_a_url(work, url, tmp_path):
    config = work / "url.yaml"
    config.write_text(
        f"model: onnx:net.onnx\nimages: {url}\nsplit: test\nvlm: cells\n"
        f"concepts: concepts.yaml\nout: {tmp_path / 'out'}\n"
    )
    result = run("debug", "--config", config, "--quiet")
    assert result.exit_code == 1, result.output
    assert settings(tmp_path / "out")["images"] == url


def test_a_file_url_is_kept_as_well(work, tmp_path):
    url = (work / "photos").as_uri()
    assert debug(work, url, tmp_path).exit_code == 1
    assert settings(tmp_path)["images"] == url
    assert run("find", tmp_path, "wrong", "--save-images", tmp_path / "found").exit_code == 0


def test_pictures_are_read_again_by_find_fix_explain_and_the_monitor(url, session, tmp_path):
    found = run("find", session, "wrong", "--save-images", tmp_path / "found")
    assert found.exit_code == 0, found.output
    assert len(list((tmp_path / "found").glob("*.jpg"))) > 5
    assert run("fix", session, "--out", tmp_path / "fixes", "--quiet").exit_code == 0
    for more in ((), ("--full", "--detector", "msp")):
        fitted = run("monitor", "fit", session, "--out", tmp_path / "m.safetensors", *more)
        assert fitted.exit_code == 0, fitted.output
    wrong = next(r for r in DebugSession.open(session).images if r["label"] != r["prediction"])
    by_name, by_url = (
        json.loads(run("explain", session, image, "--json").stdout)
        for image in (wrong["name"], f"{url}/{wrong['name']}")
    )
    assert by_url == by_name
    assert by_name[0]["edit"]["changes"]


def test_pictures_that_are_gone_are_told_with_their_url(work, url, tmp_path):
    assert debug(work, url, tmp_path).exit_code == 1
    root = place(url)
    system, path = root._open()
    system.mv(path, f"{path}-away", recursive=True)
    try:
        result = run("find", tmp_path, "wrong", "--save-images", tmp_path / "found")
    finally:
        system.mv(f"{path}-away", path, recursive=True)
    assert result.exit_code == 2
    told = " ".join(result.stderr.split())
    assert f"images must be where the run found them, got '{url}'" in told


@pytest.mark.parametrize("option", ["--out", "--preprocess", "--concepts"])
def test_other_paths_must_not_be_urls(work, url, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    result = run(
        "debug", "--model", f"onnx:{work / 'net.onnx'}", "--images", url, "--split", "test",
        "--vlm", "cells", "--concepts", work / "concepts.yaml", "--out", "out",
        option, "memory://elsewhere/x.yaml",
    )  # fmt: skip
    assert result.exit_code == 2
    assert f"{option[2:]} must be a path on this machine, got the URL" in " ".join(
        result.stderr.split()
    )
    assert list(Path().iterdir()) == []


def test_a_url_in_a_configuration_file_is_not_made_a_folder(work, url, tmp_path):
    config = tmp_path / "faultlens.yaml"
    config.write_text(
        f"model: onnx:net.onnx\nimages: {url}\nvlm: cells\nconcepts: c.yaml\nout: s3://b/out\n"
    )
    result = run("debug", "--config", config)
    assert result.exit_code == 2
    assert "got the URL 's3://b/out'" in " ".join(result.stderr.split())
