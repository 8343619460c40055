"""ICFG-PEDES."""

from __future__ import annotations

from data.annotation import Annotation
from data.records import SplitStatistics, Statistics


class IcfgPedes(Annotation):
    """ICFG-PEDES (Ding et al., Semantically Self-Aligned Network for Text-to-Image Part-aware Person
    Re-identification, 2021).

    Images of MSMT17, one caption of 37.2 words each; there is no val split.

    | split | images | identities | captions |
    |-------|-------:|-----------:|---------:|
    | train | 34,674 |      3,102 |   34,674 |
    | test  | 19,848 |      1,000 |   19,848 |

    Layout: `ICFG-PEDES/ICFG-PEDES.json` or `ICFG_PEDES.json` (`split captions file_path processed_tokens id`),
    `ICFG-PEDES/imgs/train` and `imgs/test`, which are MSMT17's folders and say nothing about the split.
    """

    name = "icfg_pedes"
    folder = "ICFG-PEDES"
    files = ("ICFG-PEDES.json", "ICFG_PEDES.json")
    image_key = "file_path"
    source = "https://github.com/zifyloo/SSAN"
    terms = "Released by its authors on request, for research only, under their terms."
    expected = Statistics(
        train=SplitStatistics(images=34_674, identities=3_102, captions=34_674),
        val=SplitStatistics(images=0, identities=0, captions=0),
        test=SplitStatistics(images=19_848, identities=1_000, captions=19_848),
        words_per_caption=37.2,
    )
