"""Train the demo's vision-language model: a dual encoder over pictures and captions.

    python scripts/train_vlm.py --out src/faultlens/assets/demo-vlm

Every caption states some facts of a picture, and it fits each picture of the batch of which these
facts hold; the two towers learn which pairs fit, by a sigmoid loss over all pairs (Zhai et al.,
Sigmoid Loss for Language Image Pre-Training, ICCV 2023, arXiv:2303.15343, §3.2). Deviations: a
pair fits if the caption is true of the picture, not only if it was written for it; fitting and
other pairs of a caption weigh the same, so that a rare fact is learnt as well as a frequent one;
and a caption that says nothing fits every picture by half, so that idle words tell nothing.
Needs the torch extra; about 20 minutes on 2 cores.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from faultlens.data.world.captions import FACTS, caption, empty_caption, facts_of, vocabulary_words
from faultlens.data.world.dataset import Drawings, render_all
from faultlens.data.world.scene import scenes
from faultlens.vlm.words import WordTokenizer
from networks import (
    ResNet,
    Scaled,
    Schedule,
    autocast,
    batches,
    inputs,
    n_workers,
    said,
    save_onnx,
    summary,
)  # fmt: skip

TRAIN_SEED = 303
DIMENSION = 128
LENGTH = 40


class TextTower(nn.Module):
    """Word vectors, each seeing its neighbours, averaged over the text."""

    def __init__(self, n_words: int, width: int = 96) -> None:
        super().__init__()
        self.words = nn.Embedding(n_words + 1, width, padding_idx=0)
        self.mix = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.out = nn.Sequential(
            nn.Linear(3 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, DIMENSION)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (P, E) for token numbers (P, L); 0 is padding."""
        is_word = (tokens > 0).unsqueeze(1).float()
        x = self.words(tokens).transpose(1, 2)
        x = torch.cat([x, torch.relu(self.mix(x))], dim=1) * is_word
        return self.out(x.sum(2) / is_word.sum(2).clamp(min=1))


class Pairs(nn.Module):
    """Both towers, and the scale and offset of their cosines."""

    def __init__(self, n_words: int, width: int) -> None:
        super().__init__()
        self.image, self.text = ResNet(width, DIMENSION), TextTower(n_words)
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.offset = nn.Parameter(torch.tensor(0.0))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Return (N, P) logits: does the caption fit the picture?"""
        images = nn.functional.normalize(self.image(pixels).float(), dim=1)
        texts = nn.functional.normalize(self.text(tokens).float(), dim=1)
        return self.scale.exp() * images @ texts.T + self.offset


def loss_of(logits: Tensor, fits: Tensor) -> Tensor:
    """Return the sigmoid loss, both kinds of pairs of a caption weighing the same."""
    loss = nn.functional.binary_cross_entropy_with_logits(logits, fits, reduction="none")
    share = fits.mean(0, keepdim=True).clamp(1e-6, 1 - 1e-6)
    # Captions that fit all or none of the batch teach nothing; those that fit by half do.
    teaches = ((share > 1e-5) & (share < 1 - 1e-5)).float()
    weight = teaches * torch.where(fits > 0.5, 0.5 / share, 0.5 / (1 - share))
    return (loss * weight).sum() / (teaches.sum().clamp(min=1) * len(logits))


def has_facts(truths: list[frozenset[str]]) -> Tensor:
    """Return (N, F) which facts hold."""
    place = {fact: i for i, fact in enumerate(FACTS)}
    table = torch.zeros(len(truths), len(FACTS))
    for row, facts in enumerate(truths):
        table[row, [place[f] for f in facts]] = 1
    return table


def train(drawings: Drawings, tokenizer: WordTokenizer, given: argparse.Namespace) -> Pairs:
    """Return the trained towers in evaluation mode."""
    torch.manual_seed(given.seed)
    rng = np.random.default_rng(given.seed)
    truths = [facts_of(s, a) for s, a in zip(drawings.scenes, drawings.attributes, strict=True)]
    table = has_facts(truths)
    size = min(given.batch_size, len(truths))
    pairs = Pairs(len(tokenizer.words), given.width).to(memory_format=torch.channels_last)
    schedule = Schedule(list(pairs.parameters()), given.epochs * (len(truths) // size), 3e-3)
    for rows in batches(len(truths), size, given.epochs, rng):
        told = [caption(truths[r], rng) for r in rows for _ in range(2)]
        told += [empty_caption(rng) for _ in range(1 + size // 16)]
        stated = has_facts([c.facts for c in told])
        fits = (stated @ (1 - table[rows]).T == 0).T.float()
        fits[:, stated.sum(1) == 0] = 0.5
        tokens = torch.from_numpy(tokenizer([c.text for c in told]))
        with autocast():
            logits = pairs(inputs(drawings.pixels[rows], rng), tokens)
        schedule.step(loss_of(logits.float(), fits))
    return pairs.eval()


def main() -> None:
    """Train and save; `benchmarks/world.py` measures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    options.add_argument("--images", type=int, default=48_000, help="training pictures")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--batch-size", type=int, default=256)
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--seed", type=int, default=0, help="of the weights, batches and captions")
    given = options.parse_args()
    drawings = render_all(list(scenes(given.images, TRAIN_SEED)), n_workers(), said)
    print(summary(drawings), flush=True)
    tokenizer = WordTokenizer(vocabulary_words(), LENGTH)
    pairs = train(drawings, tokenizer, given)
    given.out.mkdir(parents=True, exist_ok=True)
    pixels = torch.zeros(1, 3, 64, 64)
    tokens = torch.ones(1, LENGTH, dtype=torch.int64)
    save_onnx(Scaled(pairs.image), given.out / "image.onnx", pixels, ("image", "embedding"), {})
    save_onnx(pairs.text, given.out / "text.onnx", tokens, ("tokens", "embedding"), {})
    tokenizer.write(given.out / "words.json")
    sizes = {f.name: f.stat().st_size for f in sorted(given.out.iterdir())}
    print(json.dumps({"bytes": sizes}))


if __name__ == "__main__":
    main()
