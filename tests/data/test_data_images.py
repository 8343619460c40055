"""Any image file becomes upright 8-bit RGB, or a UserError."""

from __future__ import annotations

import contextlib
import hashlib
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data import UserError
from data.images import MEAN, MEAN_COLOUR, check_header, read_image, resize

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

GRADIENT = np.linspace(0, 255, 24 * 12 * 3).reshape(24, 12, 3).astype(np.uint8)


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def pixels(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_kept_bit_by_bit(tmp_path):
    assert (pixels(saved(tmp_path, Image.fromarray(GRADIENT))) == GRADIENT).all()


@pytest.mark.parametrize("name", ["a.bmp", "a.png", "a.webp"])
def test_lossless_formats(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    assert (pixels(saved(tmp_path, Image.fromarray(GRADIENT), name, **options)) == GRADIENT).all()


def test_transparency_lies_on_the_mean_colour(tmp_path):
    rgba = np.zeros((24, 12, 4), np.uint8)
    rgba[:12] = (10, 20, 30, 255)
    rgba[12:] = (255, 255, 255, 0)
    found = pixels(saved(tmp_path, Image.fromarray(rgba)))
    assert (found[:12] == (10, 20, 30)).all()
    assert (found[12:] == MEAN_COLOUR).all()
    assert tuple(round(255 * m) for m in MEAN) == MEAN_COLOUR


def test_grey_palette_bilevel_and_transparent_palette(tmp_path):
    grey = GRADIENT[..., 0]
    assert (pixels(saved(tmp_path, Image.fromarray(grey), "g.png")) == grey[..., None]).all()
    palette = Image.new("P", (12, 24), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert (pixels(saved(tmp_path, palette, "p.png")) == (200, 100, 50)).all()
    assert (pixels(saved(tmp_path, palette, "t.png", transparency=1)) == MEAN_COLOUR).all()
    assert (pixels(saved(tmp_path, Image.new("1", (12, 24), 1), "b.png")) == 255).all()
    assert pixels(saved(tmp_path, palette, "p.gif")).shape == (24, 12, 3)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 24 * 12).reshape(24, 12).astype(np.uint16)
    found = pixels(saved(tmp_path, Image.fromarray(deep)))
    assert np.abs(found[..., 0].astype(float) - deep / 257).max() <= 0.5
    wide = pixels(saved(tmp_path, Image.fromarray(deep.astype(np.int32)), "i.tiff"))
    assert (wide == found).all()
    floats = pixels(saved(tmp_path, Image.fromarray((deep / 65535).astype(np.float32)), "f.tiff"))
    assert (floats == found).all()


def test_cmyk_and_progressive_jpeg_look_like_rgb(tmp_path):
    image = Image.new("RGB", (32, 64), (200, 40, 90))
    for name, picture, options in (
        ("c.jpg", image.convert("CMYK"), {}),
        ("p.jpg", image, {"progressive": True}),
        ("l.jpg", image.convert("L").convert("RGB"), {}),
    ):
        found = pixels(saved(tmp_path, picture, name, quality=95, **options)).astype(int)
        assert np.abs(found - np.asarray(picture.convert("RGB"), int)).max() <= 4


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: np.transpose(a, (1, 0, 2))),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2)),
        (8, np.rot90),
    ],
)
def test_exif_orientation(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (pixels(saved(tmp_path, Image.fromarray(GRADIENT), exif=exif)) == turn(GRADIENT)).all()


def test_damaged_exif_does_not_cost_the_image(tmp_path):
    path = saved(
        tmp_path, Image.fromarray(GRADIENT), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    )
    assert pixels(path).shape == (24, 12, 3)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_no_image_is_a_user_error(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, check_header):
        with pytest.raises(UserError, match=r"a\.jpg does not open \(.+\)"):
            read(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
def test_truncated_files_are_errors(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, form)
    path = tmp_path / "cut"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match="does not open"):
        read_image(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_overwritten_bytes_give_an_image_or_a_user_error(tmp_path, data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, form)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 200)))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz"
    path.write_bytes(bytes(content))
    with contextlib.suppress(UserError):
        assert read_image(path).mode == "RGB"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_antialiased(interpolation):
    stripes = np.zeros((96, 48, 3), np.uint8)
    stripes[::2] = 255
    small = resize(Image.fromarray(stripes), (24, 12), interpolation)
    assert small.shape == (24, 12, 3)
    assert small.dtype == np.uint8
    assert (
        np.abs(small[1:-1].astype(int) - 128).max() <= 8
    )  # without antialiasing stripes stay black and white
    same = resize(Image.fromarray(GRADIENT), (24, 12), interpolation)
    assert (same == GRADIENT).all()


def kernel(name: str, x: float) -> float:
    """The weight of a sample at distance x: a tent, or Keys' cubic with a = -1/2 (IEEE Trans. ASSP 29(6), 1981)."""
    x = abs(x)
    if name == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height", [7, 24, 61])
def test_resize_is_the_formula(interpolation, height):
    """Along one axis, where the picture grows and where it shrinks (the kernel is then as much wider)."""
    column = np.random.default_rng(3).integers(0, 256, (30, 1, 3), dtype=np.uint8)
    scale = max(1.0, 30 / height)
    expected = []
    for row in range(height):
        centre = (row + 0.5) * 30 / height - 0.5
        weights = np.array([kernel(interpolation, (other - centre) / scale) for other in range(30)])
        expected.append(weights @ column[:, 0].astype(float) / weights.sum())
    found = resize(Image.fromarray(column), (height, 1), interpolation)
    assert np.abs(found[:, 0] - np.clip(expected, 0, 255)).max() <= 0.6  # rounding to 8 bits


def made_of_whole_numbers(height: int, width: int) -> np.ndarray:
    """A picture with edges, ramps and noise that no library and no processor computes otherwise."""
    y, x, colour = np.ogrid[:height, :width, :3]
    noise = (y * 7919 + x * 104729 + colour * 1299709) * 2654435761 % 2**32 >> 27
    return (((x // 9 + y // 13) % 2 * 90 + y * 100 // height + colour * 20 + noise) % 256).astype(np.uint8)


@pytest.mark.parametrize(
    ("interpolation", "digest"),
    [("bilinear", "8f75a7a6cb3ac13b"), ("bicubic", "8671f31e52cbe6f5")],
)
def test_resized_pixels_are_the_same_everywhere(interpolation, digest):
    """Whatever Pillow, numpy and numba there are, on any processor: what a model was trained on is what it is shown."""
    found = hashlib.sha256()
    for size in ((128, 64), (300, 120), (61, 47), (400, 160)):
        for wanted in ((384, 128), (224, 224), (96, 48)):
            found.update(
                resize(Image.fromarray(made_of_whole_numbers(*size)), wanted, interpolation).tobytes()
            )
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_differs_from_pillows_by_rounding_alone(interpolation):
    method = Image.Resampling[interpolation.upper()]
    rng = np.random.default_rng(1)
    for _ in range(60):
        pixels = rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), dtype=np.uint8)
        height, width = (int(side) for side in rng.integers(1, 200, 2))
        theirs = np.asarray(Image.fromarray(pixels).resize((width, height), method))
        found = resize(Image.fromarray(pixels), (height, width), interpolation)
        assert np.abs(found.astype(int) - theirs).max() <= 1


def test_another_interpolation_is_refused():
    with pytest.raises(ValueError, match="no interpolation 'nearest': use bilinear or bicubic"):
        resize(Image.fromarray(GRADIENT), (24, 12), "nearest")
