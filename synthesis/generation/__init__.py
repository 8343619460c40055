"""From prompts to a synthetic data set: prompts, generators, filters, edits, manifests. It stands above `synthesis.drawn`."""
