"""The ResNet against torchvision's with the same weights, from a file of torchvision's format; stripes by plain loops."""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from models.backbones.resnet_lstm import pretrained
from models.backbones.resnet_lstm.image import ImageEncoder
from models.backbones.resnet_lstm.pretrained import load_resnet
from models.backbones.resnet_lstm.retrieval import ResNetLstm
from models.backbones.resnet_lstm.sizes import SIZES, Size
from models.backbones.resnet_lstm.words import Words
from models.backbones.weights import CheckpointError

WORDS = Words(["red", "shirt"])
SIZE_18 = Size("basic", (2, 2, 2, 2), 64, 2, 4, 8, 4, 3, (96, 32))  # torchvision's ResNet-18, and little else


def random_statistics(module: nn.Module) -> None:
    """Also scales and shifts, which start at 1 and 0, where forgetting one would not show."""
    generator = torch.Generator().manual_seed(4)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.2, 1.2, generator)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = resnet18(weights=None)
    random_statistics(model)
    return model


@pytest.fixture(scope="module")
def file_18(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "resnet18-f37072fd.pth"
    torch.save(theirs.state_dict(), path)
    return path


def map_of(resnet: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return nn.Sequential(*list(resnet.children())[:-2])(images)


def images_of(height: int, width: int, number: int = 2) -> torch.Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_resnet_50_from_a_file(tmp_path):
    torch.manual_seed(0)
    reference = resnet50(weights=None)
    random_statistics(reference)
    state = reference.state_dict()
    assert len(state) == 320
    path = tmp_path / "resnet50-0676ba61.pth"
    torch.save(state, path)
    model = nn.Module()  # base's text side would take longer to make than this test
    model.image_encoder = ImageEncoder(SIZES["base"], (192, 64))
    report = load_resnet(model, path)
    assert (report.missing, report.unexpected, report.interpolated) == ((), (), ())
    assert report.ignored == ("image_encoder.fc.bias", "image_encoder.fc.weight")
    assert set(model.image_encoder.state_dict()) == set(state) - {"fc.weight", "fc.bias"}
    images = images_of(192, 64, 1)
    with torch.no_grad():
        expected = map_of(reference.eval(), images)
        found = model.eval().image_encoder.feature_map(images)
    assert expected.shape == (1, 2048, 6, 2)
    assert torch.allclose(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_whole_model_from_a_file(theirs, file_18, training):
    model = ResNetLstm(SIZE_18, tokenizer=WORDS)
    report = model.load_pretrained(file_18)
    assert not [name for name in report.missing if name.startswith(model.encoder_prefixes)]
    assert set(report.missing) == {
        name for name in model.state_dict() if not name.startswith("image_encoder.")
    }
    assert report.unexpected == ()
    images = images_of(96, 32)
    before = {name: buffer.clone() for name, buffer in theirs.named_buffers()}
    expected = map_of(theirs.train(training), images)
    found = model.train(training).image_encoder.feature_map(images)
    assert torch.allclose(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)
    for name, buffer in model.image_encoder.named_buffers():
        assert torch.allclose(buffer, theirs.get_buffer(name), rtol=1e-5, atol=1e-6), name
    theirs.load_state_dict(before, strict=False)


def test_files_that_do_not_fit(theirs, file_18, tmp_path):
    model = ResNetLstm(SIZE_18, tokenizer=WORDS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "other.pth"

    def refused(state, complaint, into=model):
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=complaint):
            load_resnet(into, path)

    state = theirs.state_dict()
    refused(
        {name: tensor for name, tensor in state.items() if name != "layer2.0.bn1.running_var"}, "layer2.0.bn1"
    )
    refused({name: tensor for name, tensor in state.items() if "layer4" not in name}, "lacks 25 weights")
    refused({f"visual_encoder.{name}": tensor for name, tensor in state.items()}, "another model")
    refused({**state, "conv1.weight": torch.zeros(32, 3, 7, 7)}, "another size: 1 weights differ")
    refused(state, "another size", into=ResNetLstm(replace(SIZE_18, width=32), tokenizer=WORDS))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_resnet(model, tmp_path / "absent.pth")
    path.write_bytes(file_18.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="download it again"):
        load_resnet(model, path)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_old_files_without_counters_and_new_names(theirs, tmp_path):
    model = ResNetLstm(SIZE_18, tokenizer=WORDS)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    torch.save({**state, "surprise": torch.zeros(1)}, tmp_path / "old.pth")
    report = load_resnet(model, tmp_path / "old.pth")
    assert report.unexpected == ("image_encoder.surprise",)
    assert model.image_encoder.bn1.running_var.equal(theirs.bn1.running_var)


@pytest.mark.parametrize(("name", "rows", "columns"), [("tiny", 6, 3), ("base", 12, 4)])
def test_sizes_make_maps_of_their_stride(name, rows, columns):
    with torch.device("meta"):
        size = SIZES[name]
        encoder = ImageEncoder(size, size.image_size)
        shape = encoder.feature_map(torch.empty(1, 3, *size.image_size)).shape
    assert shape == (1, size.state_width, rows, columns)
    assert size.image_size[0] == rows * size.stride


@pytest.mark.parametrize("height", [96, 112, 192])
def test_stripes_equal_loops(height):
    """6, 7 and 12 rows for six stripes."""
    torch.manual_seed(0)
    encoder = ImageEncoder(SIZES["tiny"], (height, 48)).eval()
    images = images_of(height, 48)
    whole, stripes = encoder(images)
    values = encoder.feature_map(images)
    rows = values.shape[2]
    assert rows == math.ceil(height / 16)
    assert stripes.shape == (2, 6, 192)
    for k in range(6):
        window = values[:, :, k * rows // 6 : math.ceil((k + 1) * rows / 6)]
        assert stripes[:, k].equal(window.flatten(2).max(2).values)
    assert whole.equal(values.flatten(2).max(2).values)


def test_images_that_do_not_fit():
    for height, size, least in ((95, "tiny", 96), (191, "base", 192)):
        with (
            torch.device("meta"),
            pytest.raises(ValueError, match=f"{height}x48 is too low .* height of {least}"),
        ):
            ImageEncoder(SIZES[size], (height, 48))
    encoder = ImageEncoder(SIZES["tiny"], (96, 48))
    with pytest.raises(ValueError, match=r"images are 48x96 .* set image_size"):
        encoder(torch.zeros(1, 3, 48, 96))


@pytest.fixture
def published(file_18, tmp_path, monkeypatch):
    """The file under a name with its own digest, at an address that torchvision would fetch from."""
    digest = hashlib.sha256(file_18.read_bytes()).hexdigest()[:8]
    source = tmp_path / "server" / f"resnet18-{digest}.pth"
    source.parent.mkdir()
    shutil.copy(file_18, source)
    monkeypatch.setattr(pretrained, "SOURCE", source.as_uri())
    return source


def test_torchvisions_own_file_is_fetched_once_where_it_is_missing(published, theirs, tmp_path):
    model = ResNetLstm(SIZE_18, tokenizer=WORDS)
    path = tmp_path / "checkpoint" / published.name
    load_resnet(model, path)
    assert model.image_encoder.conv1.weight.equal(theirs.conv1.weight)
    published.unlink()
    load_resnet(model, path)  # from the file that is there now


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_file_that_can_not_be_fetched_is_told_and_nothing_is_left(published, tmp_path, damage):
    if damage == "gone":
        published.unlink()
    else:
        published.write_bytes(published.read_bytes() + b"x")
    path = tmp_path / "checkpoint" / published.name
    with pytest.raises(CheckpointError, match="can't be fetched"):
        load_resnet(ResNetLstm(SIZE_18, tokenizer=WORDS), path)
    assert list(path.parent.iterdir()) == []


def test_a_file_of_another_name_is_never_fetched(published, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_resnet(ResNetLstm(SIZE_18, tokenizer=WORDS), tmp_path / "mine.pth")
