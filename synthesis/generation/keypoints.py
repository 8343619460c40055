"""People with their key points, by torchvision's Keypoint R-CNN (He et al., ICCV 2017; ResNet-50, FPN; trained on COCO)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import keypointrcnn_resnet50_fpn
from torchvision.transforms.functional import pil_to_tensor

from data.errors import UserError
from synthesis.generation.batches import in_batches
from synthesis.generation.parts import Person

WeightReader = Callable[[str, Sequence[str], str], Mapping[str, Tensor]]
MODEL = "keypointrcnn_resnet50_fpn"
_PERSON = 1  # the class; 0 is the background
# How far people who mark a point are apart, as a share of the root of the person's area (COCO's "sigmas", in its order).
SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),  # nose, eyes, ears
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),  # shoulders, elbows, wrists
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),  # hips, knees, ankles
)
_OF_BOX = 0.5  # of a box its person covers, about


class KeypointFilter:
    """Finds people and COCO's 17 points of each.

    The network's own score of a point is the height of its heatmap there, a logit without a fixed zero: the heatmap is trained
    as one softmax over all its cells, to which any number can be added. So a confidence here is what that softmax says: the
    probability that the point lies within two of COCO's standard deviations from where it is said to be (`confidences`).

    Args:
        weights: a name of the network's weights for `read_weights`: torchvision's own (`keypointrcnn_resnet50_fpn`), or a file.
        score: a detection below it is no person.
        overlap: of two boxes that overlap more (intersection over union) the surer one is kept; SynTBPR's value.
        size: pixels that an image's shorter side is brought to (the longer one: 5/3 of it at most); torchvision's habit.
        batch: images at a time, of one size.
        read_weights: the tensors behind a name, the names that torchvision releases weights by, and where another is set.
        device: where to compute.
        half: in half precision, on a GPU; boxes, points and confidences are single in any case.

    Raises:
        UserError: weights that can't be had or are another network's.
    """

    def __init__(
        self,
        weights: str = MODEL,
        score: float = 0.5,
        overlap: float = 0.1,
        size: int = 800,
        batch: int = 8,
        *,
        read_weights: WeightReader,
        device: torch.device | str = "cpu",
        half: bool = False,
    ) -> None:
        self.name = f"{Path(weights).name}, score {score:g}, overlap {overlap:g}, {size} px"
        self._device = torch.device(device)
        self._half = half and self._device.type == "cuda"
        self._batch = batch
        # 5/3 is torchvision's 1333 for 800. The backbone's own weights are in the file, so ImageNet's are not asked for.
        sizes = {"min_size": size, "max_size": round(size * 5 / 3)}
        limits = {"box_score_thresh": score, "box_nms_thresh": overlap}
        network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, **sizes, **limits)
        _fill(network, read_weights(weights, [MODEL], "in the filter's options (weights)"), weights)
        self._network = network.eval().to(self._device)
        self._heatmaps: list[Tensor] = []
        network.roi_heads.keypoint_predictor.register_forward_hook(
            lambda _module, _arguments, output: self._heatmaps.append(output)
        )

    def people(self, images: Sequence[Image.Image]) -> list[list[Person]]:
        """The people in each image, the surest first; see `PersonFilter`."""
        # Of one size: beside a larger image one is padded, which changes its borders.
        return in_batches(
            [image.size for image in images],
            self._batch,
            lambda numbers: self._found([images[number] for number in numbers]),
            remedy="lower the filter's size",
        )

    @torch.inference_mode()
    def _found(self, images: list[Image.Image]) -> list[list[Person]]:
        pixels = [pil_to_tensor(image.convert("RGB")).to(self._device).float() / 255 for image in images]
        self._heatmaps.clear()
        with torch.autocast(self._device.type, torch.float16, enabled=self._half):
            answers = self._network(pixels)
        counts = [len(answer["boxes"]) for answer in answers]
        # One call for all boxes of a batch, in their order; none where there is no box.
        heatmaps = torch.cat(self._heatmaps).split(counts) if sum(counts) else [None] * len(counts)
        self._heatmaps.clear()
        return [_people(answer, maps) for answer, maps in zip(answers, heatmaps, strict=True)]


def confidences(heatmaps: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
    """How probable it is that each point lies where it is said to be, give or take two standard deviations.

    A heatmap's softmax over all cells is the probability of the point's place (what Mask R-CNN is trained for). It is summed
    over the cells whose centre is within 2 sigma sqrt(area) of the point; there COCO's similarity of points is exp(-1/2).

    Args:
        heatmaps: (D, 17, S, S), logits of D people's points; they cover the box.
        boxes: (D, 4) as x0, y0, x1, y1 in pixels.
        points: (D, 17, 2 or more), x and y in pixels.

    Returns:
        (D, 17), 0 to 1, single precision.
    """
    cells = heatmaps.shape[-1]
    probability = heatmaps.float().flatten(2).softmax(-1).unflatten(2, (cells, cells))
    size = (boxes[:, 2:] - boxes[:, :2]).float().clamp(min=1)  # width, height
    centres = (torch.arange(cells, device=heatmaps.device) + 0.5) / cells
    place = (points[..., :2] - boxes[:, None, :2]).float()  # from the box's corner, in pixels
    across = centres * size[:, None, 0, None] - place[..., 0, None]  # (D, 17, S)
    down = centres * size[:, None, 1, None] - place[..., 1, None]
    reach = 2 * torch.tensor(SIGMAS, device=heatmaps.device) * (_OF_BOX * size.prod(1, keepdim=True)).sqrt()
    distance = across[:, :, None, :].square() + down[..., None].square()
    inside = distance <= reach[..., None, None].square()
    return (probability * inside).sum((-2, -1)).clamp(max=1)


def _people(answer: dict[str, Tensor], heatmaps: Tensor | None) -> list[Person]:
    if heatmaps is None:
        return []
    boxes, points = answer["boxes"].float(), answer["keypoints"].float()
    sure = confidences(heatmaps, boxes, points)
    keypoints = torch.cat([points[..., :2], sure[..., None]], -1).cpu().numpy().astype(np.float64)
    found = [
        Person(tuple(box), score, keypoints[number])
        for number, (box, score, label) in enumerate(
            zip(boxes.tolist(), answer["scores"].tolist(), answer["labels"].tolist(), strict=True)
        )
        if label == _PERSON and all(map(math.isfinite, box))
    ]
    return sorted(found, key=lambda person: -person.score)


def _fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], weights: str) -> None:
    """The counters of batches stay as they are: the released weights were trained with a frozen normalisation, without any."""
    own = {
        name: tensor.shape
        for name, tensor in network.state_dict().items()
        if "num_batches_tracked" not in name
    }
    if {name: tensor.shape for name, tensor in tensors.items()} != own:
        raise UserError(
            f"{weights} holds another network than torchvision's {MODEL}: name a file with its weights."
        )
    network.load_state_dict(tensors)
