"""Key points by torchvision's network with random weights, and what their confidence means."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import resnet50
from torchvision.models.detection import KeypointRCNN, keypointrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from data.errors import UserError
from engine.detector_weights import detector_weights
from synthesis.filters import is_whole_person
from synthesis.generation.keypoints import MODEL, SIGMAS, KeypointFilter, confidences
from synthesis.generation.parts import Person


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights under which something is found everywhere."""
    torch.manual_seed(0)
    network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    # The default start leaves nothing of an image after fifty layers: as much has to come out of each as goes in.
    for name, module in network.backbone.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.2)
    torch.nn.init.constant_(network.roi_heads.box_predictor.cls_score.bias[1], 2.0)
    torch.nn.init.normal_(network.roi_heads.keypoint_predictor.kps_score_lowres.weight, std=0.5)
    path = tmp_path_factory.mktemp("keypoints") / "network.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    return finder(weights, score=0.8, size=48, batch=2)


def finder(weights: Path | str, **options) -> KeypointFilter:
    return KeypointFilter(str(weights), read_weights=detector_weights, **options)


def images(count: int, size: tuple[int, int] = (48, 64)) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (count, 6, 4, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC) for pixels in small]


def same(first: list[Person], second: list[Person], tolerance: float = 0.0) -> bool:
    return len(first) == len(second) and all(
        np.allclose(one.keypoints, other.keypoints, atol=tolerance, rtol=0)
        and np.allclose([*one.box, one.score], [*other.box, other.score], atol=tolerance, rtol=0)
        for one, other in zip(first, second, strict=True)
    )


def test_people_are_found_with_their_points(network):
    found = network.people(images(2))
    assert len(found) == 2
    assert all(found), "random weights that find nothing test nothing"
    for people in found:
        assert [person.score for person in people] == sorted((p.score for p in people), reverse=True)
        for person in people:
            x0, y0, x1, y1 = person.box
            assert 0 <= x0 < x1 <= 48
            assert 0 <= y0 < y1 <= 64
            assert person.keypoints.shape == (17, 3)
            assert ((person.keypoints[:, 2] >= 0) & (person.keypoints[:, 2] <= 1)).all()
            is_whole_person(person.keypoints)


def test_the_confidences_are_those_of_the_peoples_own_heatmaps(network):
    """Taken out of the network here in another way: its keypoint branch, on the boxes that were found."""
    (image,) = images(1)
    (people,) = network.people([image])
    inside = network._network
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        resized, _ = inside.transform([pixels])
        scale = resized.image_sizes[0][0] / 64, resized.image_sizes[0][1] / 48
        boxes = torch.tensor([person.box for person in people]) * torch.tensor([scale[1], scale[0]] * 2)
        features = inside.backbone(resized.tensors)
        heads = inside.roi_heads
        pooled = heads.keypoint_roi_pool(features, [boxes], resized.image_sizes)
        maps = heads.keypoint_predictor(heads.keypoint_head(pooled))
    network._heatmaps.clear()
    points = torch.from_numpy(np.stack([person.keypoints for person in people]))
    expected = confidences(maps, torch.tensor([person.box for person in people]), points)
    assert np.allclose(expected.numpy(), points[..., 2].numpy(), atol=1e-3)


def test_one_alone_is_found_as_among_others(network):
    several = images(3)
    together = network.people(several)
    for image, people in zip(several, together, strict=True):
        assert same(network.people([image])[0], people), "equal, not only close"


def test_images_of_several_sizes_keep_their_places(network):
    mixed = [*images(1), *images(2, (48, 72)), *images(2)[1:]]
    together = network.people(mixed)
    for image, people in zip(mixed, together, strict=True):
        assert same(network.people([image])[0], people)


def test_no_image_and_no_person(weights):
    strict = finder(weights, score=0.999, size=64)
    assert strict.people([]) == []
    assert strict.people(images(2)) == [[], []]


def by_loops(heatmap: np.ndarray, box: list[float], x: float, y: float, sigma: float) -> float:
    """The probability inside the circle around a point, cell by cell."""
    cells, wide, high = len(heatmap), max(1.0, box[2] - box[0]), max(1.0, box[3] - box[1])
    reach = 2 * sigma * math.sqrt(0.5 * wide * high)
    total, inside = 0.0, 0.0
    for row in range(cells):
        for column in range(cells):
            mass = math.exp(heatmap[row, column])
            total += mass
            across = box[0] + (column + 0.5) / cells * wide - x
            down = box[1] + (row + 0.5) / cells * high - y
            if across**2 + down**2 <= reach**2:
                inside += mass
    return inside / total


def test_a_confidence_is_the_probability_around_the_point():
    rng = np.random.default_rng(1)
    heatmaps = rng.normal(0, 3, (2, 17, 14, 14))
    boxes = [[3.0, 5.0, 43.5, 130.25], [0.0, 0.0, 0.4, 20.0]]  # the second is narrower than a pixel
    points = rng.uniform(0, 1, (2, 17, 2)) * [[[40, 125]], [[1, 20]]] + [[[3, 5]], [[0, 0]]]
    found = confidences(torch.from_numpy(heatmaps), torch.tensor(boxes), torch.from_numpy(points))
    for person in range(2):
        for point in range(17):
            expected = by_loops(heatmaps[person, point], boxes[person], *points[person, point], SIGMAS[point])
            assert found[person, point] == pytest.approx(expected, abs=1e-5)


def test_a_confidence_has_no_zero_point_of_its_own():
    """What the network's own scores have not: a heatmap and the same one plus a number say the same."""
    maps = torch.randn(1, 17, 56, 56, generator=torch.Generator().manual_seed(0))
    box, points = torch.tensor([[0.0, 0.0, 60.0, 180.0]]), torch.full((1, 17, 2), 30.0)
    assert torch.allclose(confidences(maps, box, points), confidences(maps + 20, box, points), atol=1e-6)


def test_a_sharp_peak_is_sure_and_a_flat_map_is_not():
    maps = torch.zeros(1, 17, 56, 56)
    box, points = torch.tensor([[0.0, 0.0, 56.0, 168.0]]), torch.tensor([[[28.5, 85.5]]]).expand(1, 17, 2)
    assert (confidences(maps, box, points) < 0.2).all()
    maps[:, :, 28, 28] = 30.0
    assert (confidences(maps, box, points) > 0.999).all()
    elsewhere = points + torch.tensor([0.0, 60.0])  # a point that is said to be where the map says it is not
    assert (confidences(maps, box, elsewhere) < 1e-6).all()


def test_weights_of_torchvisions_own_name_that_can_not_be_fetched(monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"no route to host.*by hand into .*in the filter's options"):
        finder(MODEL)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "There is no"), (b"no weights", "download it again"), ({"a": torch.ones(1)}, "another network")],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=words):
        finder(path)


def test_a_pickle_of_weights_is_read_as_well(weights, tmp_path, network):
    torch.save(load_file(weights), tmp_path / "network.pth")
    other = finder(tmp_path / "network.pth", score=0.8, size=48, batch=2)
    assert same(other.people(images(1))[0], network.people(images(1))[0])


def test_weights_as_torchvision_trains_them_are_read(weights, tmp_path, network):
    """With a frozen normalisation in the backbone, whose files have no counters of batches."""
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    frozen = KeypointRCNN(_resnet_fpn_extractor(body, 3), num_classes=2, num_keypoints=17)
    frozen.load_state_dict(load_file(weights))
    assert not [name for name in frozen.state_dict() if "num_batches_tracked" in name]
    torch.save(frozen.state_dict(), tmp_path / "released.pth")
    other = finder(tmp_path / "released.pth", score=0.8, size=48, batch=2)
    assert same(other.people(images(1))[0], network.people(images(1))[0])
