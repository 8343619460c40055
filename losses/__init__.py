"""Losses as pure functions: tensors in, a scalar out, or one number per sample where it says so.

They know nothing of models or ranks. Where several processes share a batch, `models.methods` gathers before it calls.
"""
