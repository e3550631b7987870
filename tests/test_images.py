"""Images as people have them: any format under any name, broken, huge; each is read, or refused for a stated reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanner_jax import images
from scanner_jax.images import ImagesError, UnreadableImage, crop, find_images, image_size, read_image

RED, BLUE = (200, 30, 40), (20, 30, 210)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def animation() -> bytes:
    return encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "green")] * 3)


def read(folder: Path, data: bytes, name: str = "1.jpg") -> Image.Image:
    (folder / name).write_bytes(data)
    return read_image(folder / name)


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encoded(picture(), "JPEG", quality=95), 12),
        (encoded(picture("CMYK"), "JPEG", quality=95), 25),
        (encoded(picture(), "PNG"), 0),
        (encoded(picture("RGBA"), "PNG"), 0),
        (encoded(picture().quantize(4), "PNG"), 0),
        (encoded(picture().quantize(4), "PNG", transparency=b"\x00\xff"), 0),
        (encoded(picture(), "BMP"), 0),
        (encoded(picture(), "WEBP", lossless=True), 0),
        (encoded(picture(), "TIFF"), 0),
        (animation(), 3),
    ],
    ids="jpeg cmyk png rgba palette transparent-palette bmp webp tiff animated-gif".split(),
)
def test_any_format_is_read_as_rgb_whatever_its_name(tmp_path: Path, data: bytes, tolerance: int) -> None:
    image = read(tmp_path, data)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    for place, colour in (((5, 15), RED), ((35, 15), BLUE)):
        assert np.abs(np.subtract(image.getpixel(place), colour)).max() <= tolerance


@pytest.mark.filterwarnings("error")
def test_grey_two_colours_and_transparency(tmp_path: Path) -> None:
    assert read(tmp_path, encoded(Image.new("L", (4, 4), 77), "PNG")).getpixel((0, 0)) == (77, 77, 77)
    assert read(tmp_path, encoded(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert read(tmp_path, encoded(Image.new("LA", (4, 4), (77, 0)), "PNG")).getpixel((0, 0)) == (77, 77, 77)
    levels = np.array([[0, 256 * 77, 65535]], np.uint16)
    image = read(tmp_path, encoded(Image.fromarray(levels), "PNG"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (77, 77, 77), (255, 255, 255)]


def test_a_rotation_in_exif_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert read(tmp_path, encoded(picture(), "JPEG", exif=exif)).size == (40, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404 Not Found</html>", "not an image"),
        (b"\x7fELF" + bytes(100), "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(picture(size=(300, 300)), "JPEG")[:900], "cut short or damaged"),
        (encoded(picture(size=(300, 300)), "PNG")[:-60], "cut short or damaged"),
        (encoded(picture(size=(300, 300)), "WEBP")[:200], "damaged"),
        (png_header(30_000, 30_000), "more than 67,108,864 pixels"),
        (png_header(8193, 8192), "more than 67,108,864 pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "more than 67,108,864 pixels"),
        (png_header(100, 100), "cut short or damaged"),
    ],
    ids="empty html elf postscript jpeg-cut png-cut webp-cut bomb just-over overflowing header-only".split(),
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_gives_no_pixels_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        read(tmp_path, data)
    assert str(caught.value) == reason


def test_missing_unreadable_and_too_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableImage, match="^missing file$"):
        read_image(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").mkdir()
    with pytest.raises(UnreadableImage, match="^cannot be read .Is a directory.$"):
        read_image(tmp_path / "2.jpg")
    monkeypatch.setattr(images, "BYTE_LIMIT", 100)
    with pytest.raises(UnreadableImage, match="file of more than"):
        read(tmp_path, encoded(picture(), "BMP"))


def test_a_size_is_read_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(png_header(100, 90))  # no pixels behind it
    assert image_size(tmp_path / "1.jpg") == (100, 90)
    (tmp_path / "1.jpg").write_bytes(png_header(8193, 8192))
    with pytest.raises(UnreadableImage, match="^more than 67,108,864 pixels$"):
        image_size(tmp_path / "1.jpg")


def test_images_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    for name in ("b.JPG", "more/a.png", "more/deep/c.d.jpeg", "more/notes.txt", ".hidden.jpg", "._b.jpg", "README"):
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert list(found) == ["a", "b", "c.d"]
    assert found["c.d"] == tmp_path / "more/deep/c.d.jpeg"


def test_folders_that_are_none_of_images(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(ImagesError, match="no file that is named like an image"):
        find_images(tmp_path)
    (tmp_path / "1.jpg").touch()
    with pytest.raises(ImagesError, match="is a file; give the folder"):
        find_images(tmp_path / "1.jpg")
    (tmp_path / "more").mkdir()
    for name in ("1.png", "2.png", "2.gif"):
        (tmp_path / "more" / name).touch()
    (tmp_path / "more" / "bad\udcff.png").touch()
    with pytest.raises(ImagesError) as caught:
        find_images(tmp_path)
    listed = str(caught.value).splitlines()[1:]
    assert listed[:2] == ["  1: 1.jpg, more/1.png", "  2: more/2.gif, more/2.png"]
    assert "not UTF-8; rename it" in listed[2]


def test_crop() -> None:
    image = picture()
    assert crop(image, (0.0, 0.0, 40.0, 30.0)) == image
    region = crop(image, (21.4, 2.0, 90.0, 5.5))
    assert region is not None and region.size == (19, 4) and region.getpixel((0, 0)) == BLUE
    for nothing in ((3.0, 3.0, 3.5, 9.0), (-9.0, 0.0, 0.5, 9.0), (50.0, 0.0, 60.0, 9.0), (9.0, 0.0, 3.0, 9.0)):
        assert crop(image, nothing) is None
    assert crop(image, (float("nan"), 0.0, 9.0, 9.0)) is None
