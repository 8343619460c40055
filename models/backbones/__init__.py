"""What the methods stand on: BLIP's image encoder, its text stack, its captioner, and their tokenizer."""
