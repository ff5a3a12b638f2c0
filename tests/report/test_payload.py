import base64
import json

import numpy as np
import pytest

from faultlens.report.payload import STEPS, embed, pack, payload

TYPES = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "i2": np.int16, "f4": np.float32}


def unpack(packed):
    return np.frombuffer(base64.b64decode(packed["data"]), TYPES[packed["type"]])


@pytest.mark.parametrize(("largest", "name"), [(0, "u1"), (255, "u1"), (256, "u2"), (65536, "u4")])
def test_counts_take_the_fewest_bytes(largest, name):
    packed = pack(np.array([0, largest]))
    assert packed["type"] == name
    assert unpack(packed).tolist() == [0, largest]


def test_json_survives_inside_a_script_element(hostile):
    text = embed({"names": hostile.classes, "line": "\u2028", "values": [np.nan, np.inf, 1.5]})
    assert not set("<>&\u2028") & set(text)
    read = json.loads(text)
    assert read["names"] == list(hostile.classes)
    assert read["values"] == [None, None, 1.5]


def test_payload_holds_the_counts_and_differences(content):
    data = json.loads(embed(payload(content, [3])))
    counts = content.counts["vlm"]
    wins = unpack(data["counts"]["vlm"]["correct"]["wins"][2]).reshape(12, 12)
    assert (wins == counts.correct.wins[2]).all()
    assert data["counts"]["vlm"]["correct"]["n"] == counts.correct.n.tolist()
    delta = content.confusions[0].delta_model
    low = unpack(data["confusions"][0]["model"]["low"]) / STEPS
    assert np.abs(low.reshape(12, 12) - delta.low).max() <= 0.5 / STEPS
    q = unpack(data["confusions"][0]["model"]["q"])
    assert q[0] == np.float32(delta.q_values[0, 1])
    assert q[-1] == np.float32(delta.q_values[10, 11])
    assert data["valid"] == [True] * 11 + [False]
    assert list(data["images"]) == ["3"]


def test_small_groups_send_no_differences(content):
    data = payload(content, [])
    few = [c.correct.n.tolist() for c in content.counts.values()]
    assert len(few) == 2
    assert data["counts"]["model"]["q"][1] is None  # the second class has no errors
    assert data["counts"]["model"]["q"][0] is not None
    small = next(c for c, d in zip(content.confusions, data["confusions"], strict=True)
                 if not c.delta_model.is_enough)  # fmt: skip
    sent = data["confusions"][content.confusions.index(small)]["model"]
    assert sent == {"nFirst": small.delta_model.n_first, "nSecond": small.delta_model.n_second}
