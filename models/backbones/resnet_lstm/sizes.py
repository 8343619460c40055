"""The two sizes of the ResNet and LSTM backbone; a size says every width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Size:
    """Widths and depths of a ResNet with an LSTM.

    `block` and `depths` are torchvision's: the kind of a ResNet's blocks and their number in its four stages. `width` is
    that of the first stage, which doubles with every stage. `features` is the width of the global feature and of each of
    the `parts` local ones, `relation_width` that of each relation feature. `image_size` is (height, width) in pixels, used
    when a configuration names none.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    width: int
    last_stride: int
    word_width: int
    features: int
    relation_width: int
    parts: int
    image_size: tuple[int, int]

    @property
    def state_width(self) -> int:
        """Channels of the image's feature map and width of the LSTM, which share their projections."""
        return 8 * self.width * (4 if self.block == "bottleneck" else 1)

    @property
    def stride(self) -> int:
        """Pixels per row of the image's feature map."""
        return 16 * self.last_stride


# base is SSAN's (arXiv 2107.12666): ResNet-50, 97.9 million weights with the vocabulary of CUHK-PEDES.
# tiny is this project's own: 1.5 million, and a last stage without stride, so that 96 rows of pixels make six stripes.
SIZES: dict[str, Size] = {
    "tiny": Size("basic", (1, 1, 1, 1), 24, 1, 64, 128, 64, 6, (96, 48)),
    "base": Size("bottleneck", (3, 4, 6, 3), 64, 2, 512, 1024, 512, 6, (384, 128)),
}
