"""Tiny dual encoders in the format of Hugging Face, with random weights, saved to a folder."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, LENGTH = 32, 24
_TOWER = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_MEAN, _STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def pictures(n=5, seed=0):
    """Noise of many shapes, odd and even, wide and high."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 90, (n, 2))
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]


TEXTS = ["wheels", "a photo of something with Wheels!", "fur", "a long, long snout"]


def byte_vocabulary():
    """CLIP's vocabulary without merges: every byte, and every byte at the end of a word."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(words)}


def save_clip(folder, seed=0, dtype="float32"):
    """Write a CLIP checkpoint as transformers does: 32 x 32 pixels, 12 dimensions."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    vocabulary = byte_vocabulary()
    end = vocabulary["<|endoftext|>"]
    text = {
        "vocab_size": len(vocabulary), "hidden_size": 16, "max_position_embeddings": LENGTH * 2,
        "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=_TOWER | text, vision_config=_TOWER | vision, projection_dim=12)
    save_model(CLIPModel(config).to(getattr(torch, dtype)), folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    write_preprocessing(
        folder, image_processor_type="CLIPImageProcessor", do_center_crop=True,
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
    )  # fmt: skip
    return Path(folder)


def save_siglip(folder, seed=0):
    """Write a SigLIP checkpoint with a tokenizer of words that fills every row with padding."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(seed)
    config = SiglipConfig(
        text_config=_siglip_text(),
        vision_config=_TOWER | {"hidden_size": 16, "image_size": SIDE, "patch_size": 8},
    )
    model = SiglipModel(config)
    _give_logits(model)
    save_model(model, folder)
    save_words(folder, model_input_names=["input_ids"])
    write_preprocessing(
        folder, image_processor_type="SiglipImageProcessor", size={"height": SIDE, "width": SIDE}
    )
    return Path(folder)


def save_siglip2(folder, seed=0):
    """Write a SigLIP 2 checkpoint that takes pictures of any shape, as up to 16 patches."""
    import torch
    from transformers import Siglip2Config, Siglip2Model

    torch.manual_seed(seed)
    vision = {"hidden_size": 16, "num_patches": 16, "patch_size": 8}
    model = Siglip2Model(Siglip2Config(text_config=_siglip_text(), vision_config=_TOWER | vision))
    _give_logits(model)
    save_model(model, folder)
    save_words(folder, model_input_names=["input_ids"])
    write_preprocessing(
        folder, image_processor_type="Siglip2ImageProcessor", patch_size=8, max_num_patches=16
    )
    return Path(folder)


def save_words(folder, **settings):
    """Write a fast tokenizer of lower-case words and letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "something", "with", "wheels", "fur",
             "long", "snout", "!", ","]  # fmt: skip
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=LENGTH, **settings,
    ).save_pretrained(folder)  # fmt: skip


def save_model(model, folder):
    """Save without a progress bar."""
    from transformers import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)


def write_preprocessing(folder, **settings):
    """Write preprocessor_config.json; settings add to the usual ones."""
    usual = {
        "do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": _MEAN, "image_std": _STD,
    }  # fmt: skip
    Path(folder, "preprocessor_config.json").write_text(json.dumps(usual | settings))


def edit_json(path, **changes):
    """Change keys of a JSON file; None takes one out."""
    value = json.loads(Path(path).read_text()) | changes
    Path(path).write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def _siglip_text():
    return _TOWER | {
        "vocab_size": 14, "hidden_size": 16, "max_position_embeddings": LENGTH,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "projection_size": 16,
    }  # fmt: skip


def _give_logits(model):
    import torch

    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-7.5)
