"""Train what the case study's test runs with: a tiny CLIP and a tiny ResNet on ConceptWorld.

Both are saved as Hugging Face saves them, in half precision, under 1 MB together. The CLIP learns
the words of the concept pack `rival10`; the pictures are drawn anew from the seeds below.

    python scripts/train_rival10_stand_ins.py tests/stand_ins
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from faultlens.concepts import CLASS_TEMPLATES, TEMPLATES
from faultlens.data.world.dataset import Drawings, render_all
from faultlens.data.world.names import ATTRIBUTES, CLASSES
from faultlens.data.world.scene import scenes
from faultlens.packs import read_concepts

#: Not the seeds of any test.
SEED, N = 4321, 2500
SIDE, LENGTH = 64, 32
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def main() -> None:
    """Train both and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--n", type=int, default=N, help="pictures")
    parser.add_argument("--steps", type=int, default=4000, help="of the CLIP")
    args = parser.parse_args()
    drawn = render_all(list(scenes(args.n, SEED)))
    torch.manual_seed(SEED)
    train_resnet(drawn, args.out / "resnet", 150)
    train_clip(drawn, args.out / "clip", args.steps)


def train_clip(drawn: Drawings, folder: Path, n_steps: int) -> None:
    """Teach pictures and sentences to agree: one sentence a fact, true of a picture or not."""
    facts = sentences()
    tokenizer = make_tokenizer([t for texts in facts for t in texts])
    model = make_clip(tokenizer)
    truth = torch.from_numpy(
        np.c_[drawn.attributes, np.eye(len(CLASSES), dtype=bool)[drawn.labels]]
    ).float()
    encoded = [
        tokenizer(texts, padding="max_length", max_length=LENGTH, return_tensors="pt")
        for texts in facts
    ]
    share = truth.mean(dim=0)
    bias = nn.Parameter(torch.logit(share))
    optimizer = torch.optim.AdamW([*model.parameters(), bias], lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=n_steps)
    rng = np.random.default_rng(SEED)
    for step in range(n_steps):
        rows = rng.choice(len(truth), 64, replace=False)
        said = [rng.integers(len(e["input_ids"])) for e in encoded]
        texts = {
            key: torch.stack([e[key][i] for e, i in zip(encoded, said, strict=True)])
            for key in ("input_ids", "attention_mask")
        }
        seen = unit(model.get_image_features(pictures(drawn, rows, rng)))
        words = unit(model.get_text_features(**texts))
        logits = model.logit_scale.exp() * seen @ words.T
        loss = functional.binary_cross_entropy_with_logits(logits + bias, truth[rows])
        loss = loss + functional.cross_entropy(
            logits[:, len(ATTRIBUTES) :], torch.from_numpy(drawn.labels[rows])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(30)))
        if step % 100 == 0:
            print(f"clip {step} {loss.item():.3f}", flush=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preprocessing(folder)


def sentences() -> list[list[str]]:
    """Return the sentences of each fact: 18 attributes, then 10 classes."""
    pack = read_concepts("rival10")
    about = [[t.format(p) for p in pack.concepts[a].prompts for t in TEMPLATES] for a in ATTRIBUTES]
    return about + [
        [t.format(p) for p in pack.classes[k].names for t in CLASS_TEMPLATES] for k in CLASSES
    ]


def make_tokenizer(texts: list[str]):
    """Return CLIP's tokenizer with a small vocabulary of its own."""
    from tokenizers.pre_tokenizers import ByteLevel  # noqa: PLC0415
    from transformers import CLIPTokenizer  # noqa: PLC0415

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    empty = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    return empty.train_new_from_iterator([texts], 800)


def make_clip(tokenizer):
    """Return a CLIP of random weights for pictures of 64 x 64 pixels."""
    from transformers import CLIPConfig, CLIPModel  # noqa: PLC0415

    text = {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": LENGTH,
    }  # fmt: skip
    vision = {
        "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": SIDE, "patch_size": 16,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=48))


def train_resnet(drawn: Drawings, folder: Path, n_steps: int) -> None:
    """Train a small residual network to classify."""
    from transformers import ResNetConfig, ResNetForImageClassification  # noqa: PLC0415

    config = ResNetConfig(
        embedding_size=12, hidden_sizes=[12, 24, 48], depths=[1, 1, 1], layer_type="basic",
        id2label=dict(enumerate(CLASSES)), label2id={k: i for i, k in enumerate(CLASSES)},
    )  # fmt: skip
    model = ResNetForImageClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=n_steps)
    rng = np.random.default_rng(SEED)
    for step in range(n_steps):
        rows = rng.choice(len(drawn.labels), 64, replace=False)
        logits = model(pictures(drawn, rows, rng)).logits
        loss = functional.cross_entropy(logits, torch.from_numpy(drawn.labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"resnet {step} {loss.item():.3f}", flush=True)
    model.half().save_pretrained(folder)
    write_preprocessing(folder)


def pictures(drawn: Drawings, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Return a batch as the towers take it, half of it mirrored."""
    x = torch.from_numpy(drawn.pixels[rows]).permute(0, 3, 1, 2).float() / 255
    mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    shift = tuple(int(s) for s in rng.integers(-3, 4, 2))
    x = torch.roll(x, shift, (-2, -1))
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def unit(found) -> torch.Tensor:
    """Return embeddings of length 1."""
    return functional.normalize(getattr(found, "pooler_output", found), dim=-1)


def write_preprocessing(folder: Path) -> None:
    """Write what pictures go through."""
    settings = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True,
        "size": {"shortest_edge": SIDE}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    }  # fmt: skip
    text = json.dumps(settings, indent=2)
    (folder / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
