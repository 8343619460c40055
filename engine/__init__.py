"""The engine room: configuration, distribution, the training loop, the pseudo-label round, checkpoints, logs.

Entry scripts call this room; it calls all the others and nothing calls back into it.
"""
