"""Vision-language models behind one protocol."""
