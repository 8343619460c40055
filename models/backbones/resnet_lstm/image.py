"""The image encoder: a ResNet without its classifier, under the names of torchvision's files."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from models.backbones.image_size import check_images
from models.backbones.normalisation import convert
from models.backbones.resnet_lstm.sizes import Size

BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ImageEncoder(nn.Module):
    """torchvision's ResNet up to its last stage, and the largest values of that stage in the image and in its stripes.

    BatchNorm is over the global batch.

    Args:
        size: widths and depths.
        image_size: (height, width) in pixels.

    Raises ValueError where the image is too low for a row of the feature map per stripe.
    """

    def __init__(self, size: Size, image_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = image_size
        if height < size.parts * size.stride:
            raise ValueError(
                f"image_size {height}x{width} is too low to be cut into {size.parts} stripes of at least {size.stride} "
                f"pixels: choose a height of {size.parts * size.stride} or more"
            )
        self.image_size = (height, width)
        self.stripes = size.parts
        self.conv1 = nn.Conv2d(3, size.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(size.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = [size.width << stage for stage in range(4)]
        expansion = BLOCKS[size.block].expansion
        inputs = [size.width, *(expansion * planes for planes in widths[:3])]
        strides = [1, 2, 2, size.last_stride]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(size.block, *of_stage)
            for of_stage in zip(inputs, widths, size.depths, strides, strict=True)
        )
        self.apply(_initialise)
        convert(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), normalised, to the maxima (B, C) of the whole map and (B, K, C) of K stripes from the top.

        Where the map's rows are no multiple of K, neighbouring stripes share a row (adaptive pooling, as in SSAN).
        Raises ValueError for images of another size than the model was built for.
        """
        check_images(images, self.image_size)
        return self.pooled(self.feature_map(images))

    def pooled(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """A feature map (B, C, h, w) to its maxima, (B, C) and (B, K, C)."""
        stripes = adaptive_max_pool2d(values, (self.stripes, 1)).flatten(2).transpose(1, 2)
        return stripes.amax(1), stripes  # every row is in a stripe

    def feature_map(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) of any size to the last stage's (B, C, H / stride, W / stride), rounded up."""
        values = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(values))))


def _stage(block: str, inputs: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    """`depth` blocks of torchvision's, the first of which takes the stride and brings its input to the new width."""
    kind = BLOCKS[block]
    outputs = planes * kind.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(
        kind(inputs, planes, stride, shortcut), *(kind(outputs, planes) for _ in range(depth - 1))
    )


def _initialise(module: nn.Module) -> None:
    """As torchvision starts a ResNet (He et al., 2015)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
