"""Which image-text pairs are right, told by their losses: the right ones are learnt first, so theirs are small."""

from __future__ import annotations

import numpy as np
from sklearn.mixture import GaussianMixture

# Of losses in 0..1; pairs that are fitted perfectly would make a component without width.
_LEAST_VARIANCE = 5e-4


def clean_probability(losses: np.ndarray) -> np.ndarray:
    """The probability that a pair's loss belongs to the lower of two groups.

    Losses are scaled to 0..1 and fitted by a mixture of two Gaussians; the result is the posterior of the one with the
    smaller mean (Li et al., DivideMix, ICLR 2020; Qin et al., RDE, CVPR 2024). Where one Gaussian describes them as well
    (a Bayesian information criterion that is no worse), there are no two groups, and every pair is clean.

    Args:
        losses: (P,) finite.

    Returns:
        (P,) float64.

    Raises:
        ValueError: a loss is no finite number.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(losses).all():
        raise ValueError("The losses of some pairs are no finite numbers: lower the learning rate (init_lr).")
    spread = np.ptp(losses) if len(losses) else 0.0
    if spread == 0:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / spread)[:, None]
    one, two = (
        GaussianMixture(components, reg_covar=_LEAST_VARIANCE, random_state=0).fit(scaled)
        for components in (1, 2)
    )
    if one.bic(scaled) <= two.bic(scaled):
        return np.ones(len(losses))
    return two.predict_proba(scaled)[:, two.means_[:, 0].argmin()]
