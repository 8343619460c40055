"""CUHK-PEDES."""

from __future__ import annotations

from data.annotation import Annotation
from data.records import SplitStatistics, Statistics


class CuhkPedes(Annotation):
    """CUHK-PEDES (Li et al., Person Search with Natural Language Description, CVPR 2017).

    Images of CUHK01, CUHK03, Market-1501, SSM and VIPER; most have two captions, a few have more, and every one of
    them is a query. 23.5 words per caption.

    | split | images | identities | captions |
    |-------|-------:|-----------:|---------:|
    | train | 34,054 |     11,003 |   68,126 |
    | val   |  3,078 |      1,000 |    6,158 |
    | test  |  3,074 |      1,000 |    6,156 |

    The paper counts 80,412 captions in all; the splits add up to 80,440, so only splits are compared.

    Layout: `CUHK-PEDES/reid_raw.json` (`split captions file_path processed_tokens id`), `CUHK-PEDES/imgs/` with
    `cam_a cam_b CUHK01 CUHK03 Market test_query train_query`.
    """

    name = "cuhk_pedes"
    folder = "CUHK-PEDES"
    files = ("reid_raw.json",)
    image_key = "file_path"
    source = "https://github.com/ShuangLI59/Person-Search-with-Natural-Language-Description"
    terms = "Released by its authors on request, for research only, under their terms."
    expected = Statistics(
        train=SplitStatistics(images=34_054, identities=11_003, captions=68_126),
        val=SplitStatistics(images=3_078, identities=1_000, captions=6_158),
        test=SplitStatistics(images=3_074, identities=1_000, captions=6_156),
        words_per_caption=23.5,
    )
