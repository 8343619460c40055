"""Backbones as they were released, one file each: they stand beside the methods, and what builds, saves and loads a method's model does so with them."""
