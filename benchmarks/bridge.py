"""What the parts of the offline label bridge bring: zero-shot classes and concepts on photographs.

Everything was chosen on the split `train`; `--split test` shows the final form alone. Class names
and concepts are those of `photos.yaml`; logits are kept in `build/`.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from faultlens.concepts import ClassEntry, ConceptFile, Vocabulary, strengths, zero_shot
from faultlens.data.images import ImageSource
from faultlens.embeddings.extract import extract
from faultlens.embeddings.store import EmbeddingStore
from faultlens.stats import auroc, wilson
from faultlens.vlm.imagenet import label_texts, read_labels
from faultlens.vlm.labels import LabelBridge, bridge_embeddings, embed_labels
from faultlens.vlm.offline import EfficientNetLite0
from faultlens.vlm.sentences import CachedTextEncoder, SentenceEncoder

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
STORES = HERE.parent / "build" / "bench" / "bridge"
MIN_AUROC = 0.75
TEXTS = {
    "names": lambda label: label.names,
    "names + kinds": lambda label: label.names + label.kinds,
    "names + looks": lambda label: label.names + label.looks,
    "names + kinds + looks": lambda label: label.texts,
}
TOPS = (1, 3, 5, 10, 20, 50)
TEMPERATURES = (0.5, 1.0, 2.0)


class Judge:
    """Measures image embeddings against the classes and concepts of `photos.yaml`."""

    def __init__(self, source):
        self.labels = source.labels
        self.several = ConceptFile.read(HERE / "photos.yaml")
        one = {k: ClassEntry(relevant=e.relevant) for k, e in self.several.classes.items()}
        self.one = self.several.model_copy(update={"classes": one})
        self.classes = source.class_names

    def __call__(self, vectors, encode_text):
        """Return accuracy with one name and with several, recall, and AUROC of each concept."""
        predictions, vocabulary = {}, None
        for key, file in (("one", self.one), ("several", self.several)):
            vocabulary = Vocabulary.build(file, self.classes, encode_text)
            predictions[key] = zero_shot(vectors, vocabulary.class_directions)
        found = strengths(vectors, vocabulary.directions)
        right = predictions["several"] == self.labels
        return {
            "accuracy_one_name": float((predictions["one"] == self.labels).mean()),
            "accuracy": float(right.mean()),
            "interval": [float(x) for x in wilson(right.sum(), len(right))],
            "recall": {
                k: float(right[self.labels == i].mean()) for i, k in enumerate(self.classes)
            },
            "auroc": {
                c: float(auroc(found[:, j], vocabulary.relevant[self.labels, j]))
                for j, c in enumerate(vocabulary.concepts)
            },
        }


def logits_of(classifier, source, name):
    """Return the logits of a split, from the store if it is there."""
    folder = STORES / f"{classifier.content_hash[:16]}-{name}"
    columns = {"logits": (len(classifier.class_names), "float32")}
    with EmbeddingStore.create_or_open(folder, name, len(source), columns) as store:
        extract(classifier, source, store)
        return np.array(store.column("logits"))


def variant(logits, texts, encoder, *, is_centred, **settings):
    """Return image embeddings and text tower of one form of the bridge."""
    labels = embed_labels(texts, encoder)
    centre = labels.mean(axis=0) if is_centred else np.zeros(encoder.dimension)
    vectors = bridge_embeddings(logits, labels - centre, **settings)
    return vectors, lambda sentences: encoder.encode_text(sentences) - centre


def ablation(logits, judge, encoder):
    """Return one row for each form of the bridge."""
    rows = []
    for parts, choose in TEXTS.items():
        texts = [choose(label) for label in read_labels()]
        for is_centred in (False, True):
            form = variant(logits, texts, encoder, is_centred=is_centred)
            rows.append(row_of(f"{parts}{', centred' if is_centred else ''}", judge(*form)))
    texts = [label.texts for label in read_labels()]
    for settings in (
        *({"top": top} for top in TOPS),
        *({"temperature": temperature} for temperature in TEMPERATURES),
    ):
        form = variant(logits, texts, encoder, is_centred=True, **settings)
        rows.append(row_of(" ".join(f"{k} {v}" for k, v in settings.items()), judge(*form)))
    return rows


def row_of(form, result):
    """Return a row of the table."""
    values = np.array(list(result["auroc"].values()))
    return {
        "form": form,
        "accuracy_one_name": result["accuracy_one_name"],
        "accuracy": result["accuracy"],
        "n_concepts_valid": int((values >= MIN_AUROC).sum()),
        "mean_auroc": float(values.mean()),
    }


def show(rows, final, n_concepts):
    """Print the table and the final form in detail."""
    print(f"{'':34}{'accuracy, names a class':^26}{'concepts':^22}")
    print(f"{'':34}{'one':>13}{'several':>13}{f'>= {MIN_AUROC}':>11}{'mean AUROC':>13}")
    for row in rows:
        accuracies = f"{row['accuracy_one_name']:13.3f}{row['accuracy']:13.3f}"
        valid = f"{row['n_concepts_valid']} of {n_concepts}"
        print(f"{row['form']:34}{accuracies}{valid:>11}{row['mean_auroc']:13.3f}")
    print("recall:", ", ".join(f"{k} {v:.2f}" for k, v in final["recall"].items()))
    print("AUROC:", ", ".join(f"{k} {v:.2f}" for k, v in final["auroc"].items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--quick", action="store_true", help="a quarter of the photographs")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    args = parser.parse_args()
    source = ImageSource.from_csv(SHARED / "photos" / "photos.csv").split(args.split)
    source = source.limit(len(source) // 4) if args.quick else source
    classifier = EfficientNetLite0()
    logits = logits_of(classifier, source, f"{args.split}{'-quick' if args.quick else ''}")
    encoder = CachedTextEncoder(SentenceEncoder())
    judge = Judge(source)
    bridge = LabelBridge(classifier, encoder, label_texts())
    final = judge(bridge.embeddings(logits), bridge.encode_text)
    rows = ablation(logits, judge, encoder) if args.split == "train" else []
    rows.append(row_of("offline (final form)", final))
    print(f"{len(source)} photographs of the split {args.split}, {len(judge.classes)} classes")
    show(rows, final, len(final["auroc"]))
    goal = {
        "name": f"offline VLM, zero-shot accuracy, photographs ({args.split})",
        "value": final["accuracy"],
        "op": ">=",
        "required": 0.80,
        "aim": 0.88,
        "ok": final["accuracy"] >= 0.80,
    }
    result = {
        "goals": [goal],
        "rows": rows,
        "final": final,
        "data": "shared photographs",
        "split": args.split,
        "n": len(source),
        "seed": None,
        "versions": {p: version(p) for p in ("numpy", "pillow", "torch", "transformers")},
        "machine": {"processors": os.cpu_count(), "platform": platform.platform()},
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2))
    return 0 if goal["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
