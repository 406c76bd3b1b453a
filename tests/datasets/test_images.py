"""The one loader of images: what it makes of deep and transparent ones; all others stay as they are."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from solo_dimreg.datasets.check import check_images, check_plain
from solo_dimreg.datasets.images import is_deep, load_image, read_with_us
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def write_png16(path: Path, values: np.ndarray, transparent: tuple[int, ...] = ()) -> None:
    """A PNG of 16 bits a channel (H, W, C), byte by byte: Pillow writes none in colours."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    keyed = chunk(b"tRNS", np.array(transparent, ">u2").tobytes()) if transparent else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + keyed + body)


def write_tiff(
    path: Path,
    values: np.ndarray,
    order: str = "<",
    *,
    compressed: bool = False,
    separate: bool = False,
    colours: int = 2,
    extra: tuple[int, ...] = (),
) -> None:
    """A TIFF of any layout (H, W, C), byte by byte: Pillow writes no colours of 16 bits."""
    height, width, channels = values.shape
    planes = np.moveaxis(values, -1, 0) if separate else values[None]
    strips = [np.ascontiguousarray(each, values.dtype.newbyteorder(order)).tobytes() for each in planes]
    strips = [zlib.compress(each) for each in strips] if compressed else strips
    fields = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * channels,
        259: [8 if compressed else 1],
    }
    fields |= {262: [1 if channels == 1 else colours], 273: [0] * len(strips), 277: [channels], 278: [height]}
    fields |= {279: [len(each) for each in strips], 284: [1 + separate]}
    fields |= {338: list(extra)} if extra else {}
    fields |= {339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels}
    start = 8 + 2 + 12 * len(fields) + 4
    end = start + sum(4 * len(each) for each in fields.values() if len(each) > 1)
    fields[273] = [end + sum(map(len, strips[:number])) for number in range(len(strips))]
    entries = longer = b""
    for tag, numbers in fields.items():
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            data, longer = struct.pack(f"{order}I", start + len(longer)), longer + data
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + data
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(fields))
    path.write_bytes(head + entries + bytes(4) + longer + b"".join(strips))


def scaled(values: np.ndarray) -> np.ndarray:
    """The values, their smallest at 0 and their largest at 255, in exact integers where they are."""
    low, high = values.min(), values.max()
    return np.array([round((int(each) - int(low)) * 255 / (int(high) - int(low))) for each in values.flat])


def pixels(path: Path) -> np.ndarray:
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["jpg", "L", "P", "1", "CMYK", "RGB", "opaque RGBA", "opaque LA", "webp"])
def test_images_of_8_bits_without_transparency_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    suffix = {"jpg": "jpg", "webp": "webp", "CMYK": "tif"}.get(kind, "png")
    image, path = Image.fromarray(RGB), tmp_path / f"image.{suffix}"
    image = image if kind in ("jpg", "webp") else image.convert(kind.split()[-1])
    image.save(path)
    assert (pixels(path) == np.asarray(Image.open(path).convert("RGB"))).all()


DEEP: dict[str, np.ndarray] = {
    "u16.png": RANDOM.integers(0, 4096, (6, 5)).astype(np.uint16),
    "u16.tif": RANDOM.integers(30_000, 65_536, (6, 5)).astype(np.uint16),
    "i32.tif": RANDOM.integers(-(2**31), 2**31, (6, 5)).astype(np.int32),
    "f32.tif": RANDOM.integers(-1000, 1000, (6, 5)).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_greys_are_scaled_by_their_own_range(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    read = pixels(tmp_path / name)
    assert (read.reshape(-1, 3) == scaled(DEEP[name])[:, None]).all() and {0, 255} <= set(read.flat)


def test_unsigned_tiffs_and_those_with_white_as_zero(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2**31 + 5, 2**32 - 1]], np.uint32)
    path = tmp_path / "image.tif"
    Image.fromarray(values.view(np.int32)).save(path)
    signed = struct.pack("<HHII", 339, 3, 1, 2)  # the tag SampleFormat, which Pillow writes so
    assert path.read_bytes().count(signed) == 1
    path.write_bytes(path.read_bytes().replace(signed, struct.pack("<HHII", 339, 3, 1, 1)))
    assert pixels(path)[0, :, 0].tolist() == [0, 0, 128, 255]
    Image.fromarray(np.array([[0, 500, 1000]], np.uint16)).save(path, tiffinfo={262: 0})
    assert pixels(path)[0, :, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize("channels", [3, 4, 2])
def test_colours_of_16_bits_are_scaled_by_their_own_range(tmp_path: Path, channels: int) -> None:
    values = RANDOM.integers(0, 4096, (6, 5, channels)).astype(np.uint16)  # 12 bits: nearly black for Pillow
    colours = values[..., :1] if channels == 2 else values[..., :3]
    if channels != 3:
        values[..., -1] = 65535
    write_png16(tmp_path / "image.png", values)
    read = pixels(tmp_path / "image.png")[..., : colours.shape[-1]]
    assert (read.ravel() == scaled(colours)).all()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_are_read_in_full_whatever_their_byte_order_and_compression(
    tmp_path: Path, order: str, compressed: bool
) -> None:
    path = tmp_path / "image.tif"
    for kind in ("u2", "i2", "i4", "f4"):
        values = RANDOM.integers(-200 if kind != "u2" else 1000, 1200, (6, 5, 1)).astype(kind)
        write_tiff(path, values, order, compressed=compressed)
        assert (pixels(path)[..., 0].ravel() == scaled(values)).all(), kind
    for channels, extra in ((3, ()), (4, (2,)), (4, (0,))):  # RGB, with alpha, with a channel without meaning
        values = RANDOM.integers(1000, 1200, (6, 5, channels)).astype(np.uint16)
        values[..., 3:] = 65535
        write_tiff(path, values, order, compressed=compressed, extra=extra)
        assert is_deep(Image.open(path))
        assert (pixels(path).ravel() == scaled(values[..., :3])).all(), (channels, extra)


@pytest.mark.parametrize("largest", [4095, 65535])
def test_ppms_of_16_bits_are_read_in_full(tmp_path: Path, largest: int) -> None:
    values = RANDOM.integers(1000, 1200, (6, 5, 3))
    path = tmp_path / "image.ppm"
    path.write_bytes(b"P6 5 6 %d\n" % largest + values.astype(">u2").tobytes())
    assert is_deep(Image.open(path)) and (pixels(path).ravel() == scaled(values)).all()


@pytest.mark.parametrize("kind", ["CMYK", "premultiplied", "separate", "separate, compressed", "plain PPM"])
def test_deep_images_that_pillow_cuts_to_8_bits_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("image.ppm" if "PPM" in kind else "image.tif")
    values = RANDOM.integers(1000, 1200, (6, 5, 3 if kind.startswith("separate") else 4)).astype(np.uint16)
    if kind == "plain PPM":
        path.write_text(f"P3 5 6 65535 {' '.join(map(str, values[..., :3].flat))}")
    elif kind == "CMYK":
        write_tiff(path, values, colours=5)
    else:
        extra = (1,) if kind == "premultiplied" else ()
        write_tiff(path, values, compressed="compressed" in kind, separate="separate" in kind, extra=extra)
    words = r"Pillow would cut its 16 bits a channel to 8; save it with 8 bits a channel, or as a 16-bit PNG"
    assert is_deep(Image.open(path))
    with pytest.raises(ConfigError, match=rf"{path}: .*{words}"):
        load_image(path)
    with pytest.raises(ConfigError, match=rf"{path}: .*{words}"):
        check_plain("data.train_path", tmp_path, "which DALI misreads")
    assert words in check_images(tmp_path).faults[path]


def test_transparent_values_of_deep_images_are_white(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    write_png16(path, np.array([[[7], [1000], [2000]]]), transparent=(7,))
    assert pixels(path)[0, :, 0].tolist() == [255, 0, 255]
    write_png16(path, np.array([[[7, 8, 9], [1000, 1000, 1000], [1510, 2020, 1000]]]), transparent=(7, 8, 9))
    assert pixels(path)[0].tolist() == [[255, 255, 255], [0, 0, 0], [128, 255, 0]]
    write_png16(path, np.array([[[100, 0], [200, 65535], [300, 65535], [200, 0x7FFF]]]))
    assert pixels(path)[0, :, 0].tolist() == [255, 0, 255, 128]


@pytest.mark.parametrize("value", [0, 9000])
def test_a_constant_deep_image_is_black(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.full((3, 3), value, np.uint16)).save(tmp_path / "image.png")
    assert not pixels(tmp_path / "image.png").any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[1, value]], np.float32)).save(path)
    with pytest.raises(ConfigError, match=rf"{path}: .*values that are not finite"):
        load_image(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composed_onto_white(tmp_path: Path, mode: str) -> None:
    alpha = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
    colours = RGB if mode == "RGBA" else RGB[..., :1]
    for drawn in (colours, 0 * colours):  # the second has its drawing in alpha alone
        image = Image.fromarray(np.concatenate([drawn, alpha[..., None]], -1))
        assert image.mode == mode
        image.save(tmp_path / "image.png")
        share = alpha[..., None] / 255
        expected = np.broadcast_to(drawn * share + 255 * (1 - share), RGB.shape)
        assert np.abs(pixels(tmp_path / "image.png") - expected).max() < 1


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_transparent_colour_is_white(tmp_path: Path, mode: str) -> None:
    colour: Any = (9, 9, 9) if mode == "RGB" else 0
    image = Image.new(mode, (2, 1), colour)
    if mode == "P":
        image.putpalette([9, 9, 9, 80, 80, 80])
    image.putpixel((1, 0), {"RGB": (80, 80, 80), "L": 80, "P": 1}[mode])
    image.save(tmp_path / "image.png", transparency=colour)
    assert pixels(tmp_path / "image.png")[0].tolist() == [[255] * 3, [80] * 3]


def test_solo_learns_data_sets_read_by_our_loader(host: Host, tmp_path: Path) -> None:
    """Compare data sets with and without labels, and with and without the index in an item."""
    folder = tmp_path / "images" / "0"
    folder.mkdir(parents=True)
    Image.fromarray(DEEP["u16.png"]).save(folder / "deep.png")
    expected = scaled(DEEP["u16.png"])
    if host.generation == "current":
        from solo.data import pretrain_dataloader as data
    else:
        from solo.utils import pretrain_dataloader as data
    unlabelled = data.CustomDatasetWithoutLabels
    for root, kind, label in ((folder, unlabelled, -1), (folder.parent, ImageFolder, 0)):
        for transform in (None, np.asarray):
            index, image, found = read_with_us(data.dataset_with_index(kind)(root, transform))[0]
            assert (index, found) == (0, label)
            assert (np.asarray(image)[..., 0].ravel() == expected).all()
            image, found = read_with_us(kind(root, transform))[0]
            assert found == label and (np.asarray(image)[..., 1].ravel() == expected).all()
    own = np.asarray(kind(folder.parent)[0][0])[..., 0]  # of another data set, which was not told to
    assert (own == np.minimum(DEEP["u16.png"], 255)).all()


def test_solo_learns_hdf5_files_are_read_by_our_loader(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    if host.generation != "current":
        pytest.skip("solo-learn 1.0.2 reads no HDF5 files")
    from solo.data.h5_dataset import H5Dataset

    monkeypatch.setenv("HOME", str(tmp_path))  # where it writes a list of the images
    content = io.BytesIO()
    Image.fromarray(DEEP["u16.png"]).save(content, "PNG")
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["n01/0.png"] = np.frombuffer(content.getvalue(), np.uint8)
        file["n01/1.png"] = np.zeros(9, np.uint8)
    dataset = read_with_us(H5Dataset("imagenet", str(tmp_path / "images.h5")))
    assert (np.asarray(dataset[0][0])[..., 0].ravel() == scaled(DEEP["u16.png"])).all()
    with pytest.raises(ConfigError, match=r"images\.h5/n01/1\.png: cannot be read as an image"):
        dataset[1]
