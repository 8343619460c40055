"""Another caption of the same label: what a method compares an image with, besides the image's own caption."""

from __future__ import annotations

import numpy as np


class Companions:
    """For each of P image-text pairs a caption of ANOTHER image with the same label, every one of these equally likely.

    In the order of (label, image) a label's pairs stand together, and within them an image's. The choice of a sample is
    its label's stretch without that of its image, so that one number picks among all of them.

    Args:
        images: (P,) image indices; an image has one label.
        labels: (P,) identities or pseudo labels.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.order = np.lexsort((images, labels))
        new_label = _changes(labels[self.order])
        new_image = new_label | _changes(images[self.order])
        self.label_first, self.label_count = self._stretches(new_label)
        self.image_first, self.image_count = self._stretches(new_image)

    def _stretches(self, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) bool, where a stretch begins in the order -> for each pair where its own begins, and its length."""
        number = np.empty(len(begins), dtype=np.int64)
        number[self.order] = np.cumsum(begins) - 1
        return np.flatnonzero(begins)[number], np.bincount(number)[number]

    def draw(self, pairs: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Companions of the pairs (B,), by one non-negative seed (B,) each: (B,) pair indices, and (B,) bool.

        False, with the pair itself, where the label has no other image.
        """
        choices = self.label_count[pairs] - self.image_count[pairs]
        found = choices > 0
        place = self.label_first[pairs] + seeds % np.maximum(choices, 1)
        place += np.where(place >= self.image_first[pairs], self.image_count[pairs], 0)
        return np.where(found, self.order[np.where(found, place, 0)], pairs), found


def _changes(values: np.ndarray) -> np.ndarray:
    """(P,) bool: where a value differs from the one before it; the first always does."""
    return np.concatenate([[True], values[1:] != values[:-1]])
