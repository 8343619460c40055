"""CLIP: two encoders that meet in one space, on open_clip and timm; their tokenizer and released files."""
