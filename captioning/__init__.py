"""Captions from images without labels: prompts, gender, attribute words, a resumable store and its backends."""
