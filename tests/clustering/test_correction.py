"""Label correction against plain loops over its description."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from clustering.correction import correct_labels, matched_samples


def loop_matched(i, image_to_text, text_to_image):
    return [
        j
        for j in range(len(image_to_text))
        if j != i
        and j in image_to_text[i]
        and i in text_to_image[j]
        and j in text_to_image[i]
        and i in image_to_text[j]
    ]


def loop_vote(i, group, labels, distance, agreement):
    counts = Counter(labels[x] for x in group if labels[x] >= 0)
    if not counts or max(counts.values()) / len(group) < agreement:
        return None
    tied = sorted(label for label, number in counts.items() if number == max(counts.values()))
    if labels[i] in tied:
        return labels[i]
    return min(tied, key=lambda label: distance(i, label))


def loop_correct(labels, core, features, image_to_text, text_to_image, agreement=0.0):
    image_to_text, text_to_image = [set(row) for row in image_to_text], [set(row) for row in text_to_image]
    centres = {
        label: np.mean([features[x] for x in range(len(labels)) if core[x] and labels[x] == label], axis=0)
        for label in set(labels.tolist()) - {-1}
    }

    def distance(x, label):
        return sum((a - b) ** 2 for a, b in zip(features[x], centres[label], strict=True))

    taken = {}
    for i in range(len(labels)):
        group = [i, *loop_matched(i, image_to_text, text_to_image)]
        label = loop_vote(i, group, labels, distance, agreement)
        if label is None:
            continue
        for x in group:
            if x not in taken or distance(x, label) < distance(x, taken[x]):
                taken[x] = label
    return np.array([taken.get(x, labels[x]) for x in range(len(labels))])


def random_case(seed, count=60, classes=6, k=8, whole_numbers=False):
    random = np.random.default_rng(seed)
    labels = random.integers(-1, classes, count)
    labels[:classes] = np.arange(classes)
    core = (labels >= 0) & (random.random(count) < 0.6)
    core[:classes] = True
    features = random.standard_normal((count, 4))
    if whole_numbers:  # few values: equal distances to different centres happen
        features = np.round(features)
    near = np.argsort(((features[:, None] - features[None]) ** 2).sum(axis=2), axis=1)
    noisy = [near[:, random.permutation(2 * k)[:k]] for _ in range(2)]
    return labels, core, features, *noisy


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_equals_the_plain_loops(seed, whole_numbers):
    case = random_case(seed, whole_numbers=whole_numbers)
    corrected = correct_labels(*case)
    assert corrected.dtype == np.int64
    np.testing.assert_array_equal(corrected, loop_correct(*case))
    assert (corrected != case[0]).any()


@pytest.mark.parametrize("agreement", [0.5, 2 / 3, 1.0])
def test_a_vote_needs_its_share(agreement):
    differ = 0
    for seed in range(6):
        case = random_case(seed)
        corrected = correct_labels(*case, agreement)
        np.testing.assert_array_equal(corrected, loop_correct(*case, agreement))
        differ += (corrected != correct_labels(*case)).any()
    assert differ


def test_matching_is_symmetric_and_needs_all_four():
    labels, _, _, image_to_text, text_to_image = random_case(3)
    matched = matched_samples(image_to_text, text_to_image).toarray()
    assert (matched == matched.T).all()
    sets = [set(row) for row in image_to_text], [set(row) for row in text_to_image]
    for i in range(len(labels)):
        assert np.flatnonzero(matched[i]).tolist() == loop_matched(i, *sets)


def pair_case(labels, positions):
    """Samples on a line whose candidates are all samples: everybody matches everybody."""
    count = len(labels)
    everyone = np.tile(np.arange(count), (count, 1))
    return np.array(labels), np.ones(count, bool), np.array(positions, float)[:, None], everyone, everyone


def test_noise_joins_the_label_of_its_matches():
    labels, core, features, everyone, _ = pair_case([0, 0, -1], [0.0, 1.0, 5.0])
    core[2] = False
    np.testing.assert_array_equal(correct_labels(labels, core, features, everyone, everyone), [0, 0, 0])


def test_a_tie_goes_to_the_own_label():
    np.testing.assert_array_equal(correct_labels(*pair_case([0, 1], [0.0, 1.0])), [0, 1])


def test_a_foreign_tie_goes_to_the_nearest_centre():
    labels, core, features, everyone, _ = pair_case([0, 1, -1], [0.0, 3.0, 2.0])
    core[2] = False
    np.testing.assert_array_equal(correct_labels(labels, core, features, everyone, everyone), [0, 1, 1])


def test_of_two_votes_the_nearer_centre_wins():
    # 2 matches the group of 0 (left) and the group of 1 (right), which don't match each other.
    labels, core = np.array([0, 1, -1]), np.array([True, True, False])
    features = np.array([[0.0], [3.0], [1.0]])
    candidates = np.array([[0, 2, 2], [1, 2, 2], [0, 1, 2]])
    np.testing.assert_array_equal(correct_labels(labels, core, features, candidates, candidates), [0, 1, 0])


def test_all_noise_stays_noise():
    labels, core, features, everyone, _ = pair_case([-1, -1], [0.0, 1.0])
    np.testing.assert_array_equal(correct_labels(labels, ~core, features, everyone, everyone), [-1, -1])


def test_without_matches_nothing_changes():
    labels, core, features, _, _ = pair_case([0, -1, 1, 1], [0.0, 1.0, 2.0, 3.0])
    nobody = np.arange(4)[:, None]
    np.testing.assert_array_equal(correct_labels(labels, core, features, nobody, nobody), labels)


def test_arguments_that_do_not_fit_are_refused():
    labels, core, features, everyone, _ = pair_case([0, 0, 1], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="indices below 3"):
        correct_labels(labels, core, features, everyone + 1, everyone)
    with pytest.raises(ValueError, match="as many core flags"):
        correct_labels(labels, core[:2], features, everyone, everyone)
    with pytest.raises(ValueError, match="no core sample"):
        correct_labels(labels, np.array([True, True, False]), features, everyone, everyone)
