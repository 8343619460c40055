"""RSTPReid."""

from __future__ import annotations

from data.annotation import Annotation
from data.records import SplitStatistics, Statistics


class RstpReid(Annotation):
    """RSTPReid (Zhu et al., DSSL: Deep Surroundings-person Separation Learning for Text-based Person Retrieval,
    ACM MM 2021).

    Images of MSMT17, five per identity from different cameras, two captions of 25.8 words each. Identity 0 exists.

    | split | images | identities | captions |
    |-------|-------:|-----------:|---------:|
    | train | 18,505 |      3,701 |   37,010 |
    | val   |  1,000 |        200 |    2,000 |
    | test  |  1,000 |        200 |    2,000 |

    Layout: `RSTPReid/data_captions.json` (`id img_path captions split`), `RSTPReid/imgs/` without subfolders.
    """

    name = "rstpreid"
    folder = "RSTPReid"
    files = ("data_captions.json",)
    image_key = "img_path"
    source = "https://github.com/NjtechCVLab/RSTPReid-Dataset"
    terms = "Released by its authors on request, for research only, under their terms."
    expected = Statistics(
        train=SplitStatistics(images=18_505, identities=3_701, captions=37_010),
        val=SplitStatistics(images=1_000, identities=200, captions=2_000),
        test=SplitStatistics(images=1_000, identities=200, captions=2_000),
        words_per_caption=25.8,
    )
