"""BLIP: image encoder, text stack, captioner, tokenizer, and its released files."""
