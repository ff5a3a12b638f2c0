"""RIVAL10 in its published layout, five tiny pictures of it."""

import base64
import io
import json
import pickle

import numpy as np
from PIL import Image

from faultlens.data.rival10 import ATTRIBUTES

# WordNet ids and mappings as published, five of the twenty.
WNIDS = {
    "n03796401": "moving van",
    "n04467665": "semi",
    "n02690373": "airliner",
    "n02391049": "zebra",
    "n01531178": "Carduelis carduelis",
}
MAPPINGS = {
    "moving van": ["truck", 0],
    "semi": ["truck", 0],
    "airliner": ["plane", 2],
    "zebra": ["equine", 6],
    "Carduelis carduelis": ["bird", 9],
    "golden retriever": ["dog", 5],
}
PICTURES = {
    "train": ("n04467665_11", "n03796401_7", "n02391049_5"),
    "test": ("n01531178_2", "n02690373_9"),
}
SHOWN = {"n04467665_11": ("wheels", "metallic"), "n02391049_5": ("long-snout", "patterned")}


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, quality=90)
    return buffer.getvalue()


def half(side=16):
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 255
    return mask


def masks_of(stem):
    """As published: a picture file in base64 for each attribute that is seen."""
    return {a: base64.b64encode(encoded(half())).decode() for a in SHOWN.get(stem, ())}


def save(root):
    """Write the pictures, their labels and masks, and the two mappings."""
    for split, stems in PICTURES.items():
        folder = root / split / "ordinary"
        folder.mkdir(parents=True)
        (root / split / "superimposed").mkdir()
        for k, stem in enumerate(stems):
            picture = np.full((16, 16, 3), 40 * k, np.uint8)
            (folder / f"{stem}.JPEG").write_bytes(encoded(picture, "JPEG"))
            labels = np.zeros((2, 18))
            labels[0, [ATTRIBUTES.index(a) for a in SHOWN.get(stem, ())]] = 1
            labels[1] = 1  # what was changed is not what is there
            np.save(folder / f"{stem}_attr_labels.npy", labels)
            merged = np.repeat(half()[:, :, None], 3, axis=2)
            (folder / f"{stem}_merged_mask.JPEG").write_bytes(encoded(merged, "JPEG"))
            whole = base64.b64encode(encoded(np.repeat(half()[:, :, None], 3, axis=2), "JPEG"))
            content = masks_of(stem) | {"entire-object": whole}
            (folder / f"{stem}_attr_dict.pkl").write_bytes(pickle.dumps(content))
    (root / "meta").mkdir()
    (root / "meta" / "wnid_to_class.json").write_text(json.dumps(WNIDS))
    (root / "meta" / "label_mappings.json").write_text(json.dumps(MAPPINGS))
