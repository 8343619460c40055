"""Losses as pure functions: tensors in, a scalar out.

They know nothing of models or ranks. Where several processes share a batch, `models.methods` gathers before it calls.
"""
