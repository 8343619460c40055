"""Batches of P labels with K image-text pairs each, the usual way in re-identification."""

from __future__ import annotations

import numpy as np


class IdentityBatches:
    """Epochs of P x K batches (Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017, section 2).

    N pairs make N // (P K) batches. How often a label of n pairs comes in an epoch: n / K times, rounded up or down at
    random, so that every pair is as likely; labels of K pairs and more come at least once while there is room for all of
    them. A label comes once in a batch; only where there are fewer than P labels it comes again, and where one has more
    pairs than batches have room for, the others come more often instead.

    Which of its pairs: its images in a random order, round and round, K of them each time, each with its next caption; so
    they are K distinct images. A label of fewer images goes round its pairs instead, one of each image before another of
    any: K distinct pairs where it has as many, else all of them before one comes again.

    Args:
        images: (N,) image indices; an image has one label.
        labels: (N,) identities or pseudo labels.
        batch_size: P K.
        per_label: K.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, per_label: int) -> None:
        self.images = np.unique(images, return_inverse=True)[1]
        self.labels = np.unique(labels, return_inverse=True)[1]
        self.sizes = np.bincount(self.labels)
        images_of_label = np.bincount(self.labels[np.unique(self.images, return_index=True)[1]])
        self.has_images = (images_of_label >= per_label)[self.labels]  # (N,): of the pair's label
        self.steps, self.per_batch, self.per_label = (
            len(labels) // batch_size,
            batch_size // per_label,
            per_label,
        )

    def order(self, seed: int) -> np.ndarray:
        """The epoch of a seed: (steps P K,) sample numbers, batch after batch, in each label after label.

        Number s stands for pair s % N; those from N on are pairs that have come before, so that each showing can have
        randomness of its own.
        """
        generator = np.random.default_rng(seed)
        shuffled = generator.permutation(len(self.sizes))
        times = self._times(generator)[shuffled]
        groups = self._groups(np.repeat(shuffled, times), _count_up(times), generator)
        # A label's groups follow each other: dealt out one by one, they come to different batches.
        batches = groups.reshape(self.per_batch, self.steps, self.per_label).transpose(1, 0, 2)
        pairs = batches[generator.permutation(self.steps)].reshape(-1)
        before = np.empty_like(pairs)
        before[np.argsort(pairs, kind="stable")] = _count_up(np.bincount(pairs))
        return pairs + len(self.labels) * before

    def _times(self, generator: np.random.Generator) -> np.ndarray:
        """How often each label comes: (L,), steps P in all.

        The j-th time (from 0) of a label of n pairs has the urgency n / (j + u), u uniform in (0, 1]; the most urgent ones
        are taken. A threshold of K leaves each label n / K times, rounded at random.
        """
        wanted = self.steps * self.per_batch
        most = self.steps * -(-self.per_batch // len(self.sizes))
        offered = np.minimum(self.sizes // self.per_label + 1, most)
        while offered.sum() < wanted:
            offered = np.minimum(2 * offered, most)
        label, time = np.repeat(np.arange(len(offered)), offered), _count_up(offered)
        urgency = self.sizes[label] / (time + 1 - generator.random(len(offered))[label])
        promised = (time == 0) & (self.sizes[label] >= self.per_label)
        taken = np.lexsort((-urgency, ~promised))[:wanted]
        return np.bincount(label[taken], minlength=len(offered))

    def _groups(self, owners: np.ndarray, times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The pairs of each owner (G,), a label, at its time (G,), which counts from 0: (G, K)."""
        # A line of stops for each label: its images with their captions, or its pairs.
        turn = np.empty(len(self.labels), dtype=np.int64)  # of a pair among those of its image
        turn[np.lexsort((generator.permutation(len(turn)), self.images))] = _count_up(
            np.bincount(self.images)
        )
        place = generator.permutation(self.images.max() + 1)[self.images]
        first, second = np.where(self.has_images, [place, turn], [turn, place])
        line = np.lexsort((second, first, self.labels))
        begins = ~self.has_images[line] | (np.diff(self.images[line], prepend=-1) != 0)
        starts = np.flatnonzero(begins)
        captions = np.diff(starts, append=len(line))
        stops = np.bincount(self.labels[line[starts]])
        # K stops a time, round and round; a stop gives its next caption in every round.
        steps = times[:, None] * self.per_label + np.arange(self.per_label)
        rounds, stop = np.divmod(steps, stops[owners][:, None])
        stop += (np.cumsum(stops) - stops)[owners][:, None]
        return line[starts[stop] + rounds % captions[stop]]


def _count_up(counts: np.ndarray) -> np.ndarray:
    """0 .. c - 1 for each count c, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
