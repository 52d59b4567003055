"""Real inputs from images, sounds and arrays: what they become, which are taken, and what is refused."""

from __future__ import annotations

import shutil
import struct
import wave
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.nets.mnn_models import floats, matmul, node, save
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.model.files import Arrays, load_arrays
from mnnprep.model.preprocess import SoundRecipe
from mnnprep.model.request import make_wants
from mnnprep.model.signature import parse_input
from mnnprep.reference.samples import (
    first_alone,
    read_samples,
    real_inputs,
    sample_checks,
    sample_files,
    spread,
)
from mnnprep.reference.sounds import _decoded, read_sound
from support.command import call, checks_of, prepared

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def read(path: Path, inputs: str, *preprocess: str, **options: Any) -> list[tuple[str, Arrays]]:
    specs = tuple(parse_input(text) for text in inputs.split(";"))
    return read_samples(make_wants(samples=str(path), preprocess=preprocess, **options), specs)


def one(path: Path, inputs: str, *preprocess: str) -> Any:
    ((_, arrays),) = read(path, inputs, *preprocess)
    return next(iter(arrays.values()))


def png(path: Path, pixels: Any = PIXELS, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


class TestImages:
    def test_a_png_is_its_pixels(self, tmp_path: Path) -> None:
        file = png(tmp_path / "a.png")
        values = one(file, "x=float32[batch,3,h,w]", "scale=255")
        assert np.array_equal(values, (PIXELS / 255.0).astype("f4").transpose(2, 0, 1)[None])

    @pytest.mark.parametrize(
        ("inputs", "recipe", "expected"),
        [
            ("x=float32[1,6,8,3]", "layout=nhwc", PIXELS[None]),
            ("x=uint8[1,6,8,3]", "layout=nhwc,dtype=uint8", PIXELS[None]),
            ("x=float32[3,6,8]", "layout=chw,channels=bgr", PIXELS[..., ::-1].transpose(2, 0, 1)),
            ("x=float16[6,8,3]", "layout=hwc", PIXELS),
            ("x=float32[1,3,4,4]", "crop=4", PIXELS[1:5, 2:6].transpose(2, 0, 1)[None]),
            (
                "x=float32[1,3,3,8]",
                "crop=3x8",
                PIXELS[2:5].transpose(2, 0, 1)[None],
            ),  # half to even, as torchvision's CenterCrop
            ("x=float32[1,3,h,w]", "mean=1:2:3,std=2", ((PIXELS - [1.0, 2, 3]) / 2).transpose(2, 0, 1)[None]),
        ],
    )
    def test_layouts_channels_and_figures(
        self, inputs: str, recipe: str, expected: Any, tmp_path: Path
    ) -> None:
        values = one(png(tmp_path / "a.png"), inputs, recipe)
        assert values.dtype == inputs.split("=")[1].split("[", maxsplit=1)[0]
        assert np.array_equal(values, expected.astype(values.dtype))

    def test_gray_is_one_channel_or_none(self, tmp_path: Path) -> None:
        file = png(tmp_path / "a.png", PIXELS[..., 0])
        assert np.array_equal(one(file, "x=float32[n,1,6,8]", "channels=gray")[0, 0], PIXELS[..., 0])
        assert np.array_equal(one(file, "x=float32[6,8]", "channels=gray,layout=hw"), PIXELS[..., 0])
        assert np.array_equal(one(file, "x=float32[n,3,6,8]", "scale=1")[0, 2], PIXELS[..., 0])

    @pytest.mark.parametrize(("size", "shape"), [("4", (4, 5)), ("3x5", (3, 5)), ("12", (12, 16))])
    @pytest.mark.parametrize("filter_", ["nearest", "bilinear", "lanczos"])
    def test_sizes_and_filters_are_pillows(
        self, size: str, shape: tuple[int, int], filter_: str, tmp_path: Path
    ) -> None:
        values = one(png(tmp_path / "a.png"), "x=float32[h,w,3]", f"size={size},filter={filter_},layout=hwc")
        assert values.shape == (*shape, 3)
        expected = Image.fromarray(PIXELS).resize(
            shape[::-1], resample=getattr(Image.Resampling, filter_.upper())
        )
        assert np.array_equal(values, np.asarray(expected))

    def test_it_is_turned_as_its_exif_says(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        values = one(png(tmp_path / "a.png", exif=exif), "x=float32[h,w,3]", "layout=hwc")
        assert np.array_equal(values, np.rot90(PIXELS, -1))

    def test_palettes_and_bilevel(self, tmp_path: Path) -> None:
        flat = np.repeat(PIXELS[:1], 6, 0) // 128 * 255
        assert np.array_equal(one(png(tmp_path / "p.png", flat, "P"), "x=float32[h,w,3]", "layout=hwc"), flat)
        assert set(
            np.unique(one(png(tmp_path / "1.png", mode="1"), "x=float32[h,w]", "layout=hw,channels=gray"))
        ) <= {0, 255}

    def test_what_is_transparent_must_be_said(self, tmp_path: Path) -> None:
        half = np.dstack([PIXELS, np.full((6, 8), 128, np.uint8)])
        file = png(tmp_path / "a.png", half)
        with pytest.raises(RefusedError, match="transparent pixels") as caught:
            one(file, "x=float32[h,w,3]", "layout=hwc")
        assert caught.value.seen == "a.png"
        values = {
            word: one(file, "x=float32[h,w,3]", f"layout=hwc,alpha={word}")
            for word in ("drop", "black", "white")
        }
        assert np.array_equal(values["drop"], PIXELS)
        assert np.abs(values["black"] - PIXELS / 2).max() < 2
        assert np.abs(values["white"] - values["black"] - 127).max() < 2
        half[..., 3] = 255
        assert np.array_equal(one(png(file, half), "x=float32[h,w,3]", "layout=hwc"), PIXELS)

    def test_the_same_bytes_give_the_same_numbers(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jpg"
        Image.fromarray(np.kron(PIXELS, np.ones((9, 9, 1), np.uint8))).save(file, quality=80)
        runs = [one(file, "x=float32[1,3,8,8]", "size=10,crop=8,scale=255") for _ in range(2)]
        assert runs[0].tobytes() == runs[1].tobytes()
        shutil.copy(file, tmp_path / "b.JPEG")
        assert np.array_equal(
            one(tmp_path / "b.JPEG", "x=float32[1,3,8,8]", "size=10,crop=8,scale=255"), runs[0]
        )

    def test_a_photograph(self, tmp_path: Path) -> None:
        samples = pytest.importorskip("sklearn.datasets").load_sample_images()
        Image.fromarray(samples.images[0]).save(tmp_path / "china.jpg", quality=95)
        values = one(
            tmp_path / "china.jpg",
            "x=float32[batch,3,224,224]",
            "size=256,crop=224,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
        )
        assert values.shape == (1, 3, 224, 224)
        assert -2.2 < values.min() < values.max() < 2.7


def _sixteen_bits(path: Path) -> None:
    """A PNG of 16-bit RGB, which Pillow reads as 8 bits without a word."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * 2) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _bomb(path: Path) -> None:
    """A small PNG whose header promises 40000 x 40000 pixels."""
    png(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 40000, 40000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    png(path, np.kron(PIXELS, np.ones((20, 20, 1), np.uint8)))
    path.write_bytes(path.read_bytes()[:-60])


def _flipped(path: Path) -> None:
    png(path)
    data = bytearray(path.read_bytes())
    data[-30] ^= 0xFF
    path.write_bytes(bytes(data))


IMAGE_FAULTS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("a.png", lambda p: p.write_bytes(b""), "could not be decoded"),
    ("a.png", lambda p: p.write_bytes(b"<html>"), "could not be decoded"),
    ("a.png", _cut, "could not be decoded"),
    ("a.png", _flipped, "could not be decoded"),
    ("a.png", lambda p: Image.fromarray(PIXELS).save(p, format="JPEG"), "does not match its suffix"),
    ("a.jpg", lambda p: Image.fromarray(PIXELS).save(p, format="PNG"), "does not match its suffix"),
    ("a.jpg", lambda p: Image.fromarray(PIXELS).save(p, format="GIF"), "could not be decoded"),
    (
        "a.jpg",
        lambda p: Image.fromarray(PIXELS).convert("CMYK").save(p),
        "an unsupported colour mode",
    ),
    ("a.png", _sixteen_bits, "more than 8 bits"),
    ("a.png", lambda p: Image.new("I;16", (4, 4)).save(p), "more than 8 bits"),
    (
        "a.png",
        lambda p: Image.fromarray(PIXELS).save(
            p, save_all=True, append_images=[Image.fromarray(PIXELS // 2)]
        ),
        "several frames",
    ),
    ("a.png", _bomb, "2\\^20 pixels"),
    ("a.png", lambda p: Image.new("RGB", (9000, 9000)).save(p), "2\\^20 pixels"),
]


@pytest.mark.parametrize(("name", "make", "what"), IMAGE_FAULTS)
def test_an_image_that_is_refused(name: str, make: Callable[[Path], Any], what: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(RefusedError, match=what) as caught:
        read(tmp_path, "x=float32[h,w,3]", "layout=hwc")
    assert name in caught.value.seen
    assert str(tmp_path) not in caught.value.seen
    assert caught.value.next


def test_a_narrow_image_is_no_way_around_the_limit(tmp_path: Path) -> None:
    png(tmp_path / "a.png", np.zeros((60000, 2, 3), np.uint8))
    with pytest.raises(RefusedError, match="pixels") as caught:
        read(tmp_path, "x=float32[h,w,3]", "layout=hwc,size=224")
    assert "resized to 224x6720000" in caught.value.seen


@pytest.mark.parametrize(
    ("inputs", "preprocess", "what"),
    [
        ("x=float32[1,3,6,8]", (), "no --preprocess says how an image becomes an input"),
        ("x=float32[1,3,6,8]", ("rate=8000",), "for sounds, and no sample is one"),
        ("x=float32[1,3,8,8]", ("scale=255",), "does not give the shape of x"),
        ("x=float32[1,3,6,8]", ("layout=nhwc",), "does not give the shape of x"),
        ("x=float32[1,3,6,8]", ("channels=gray",), "does not give the shape of x"),
        ("x=float32[1,3,6,8]", ("layout=chw",), "no input fits"),
        ("x=int64[1,3,6,8]", ("scale=255",), "no input fits"),
        ("x=float32[1,3,6,8]", ("dtype=uint8",), "no input fits"),
        ("x=uint8[1,3,6,8]", ("scale=255",), "no input fits"),
        ("x=float32[1,3,6,8];y=float32[1,3,6,8]", ("scale=255",), "several inputs fit"),
        ("x=float32[1,3,6,8]", ("z:scale=255",), "names input 'z'"),
        ("x=float32[1,3,9,9]", ("crop=9",), "crop is larger"),
        ("x=float32[1,3,6,8];k=int64[1,t]", ("scale=255",), "size of another input"),
    ],
)
def test_a_recipe_that_does_not_fit(
    inputs: str, preprocess: tuple[str, ...], what: str, tmp_path: Path
) -> None:
    png(tmp_path / "a.png")
    with pytest.raises(UsageError, match=what) as caught:
        read(tmp_path, inputs, *preprocess)
    assert caught.value.seen
    assert caught.value.next


def test_without_pillow_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnnprep.deps.installed", lambda module: module != "PIL")
    with pytest.raises(RefusedError, match="pillow") as caught:
        read(png(tmp_path / "a.png"), "x=float32[h,w,3]", "layout=hwc")
    assert caught.value.next == "pip install 'mnnprep[images]'"


class TestBatchesAndOtherInputs:
    def test_a_fixed_batch_takes_as_many_files_and_is_filled_up_from_the_first(self, tmp_path: Path) -> None:
        for i in range(5):
            png(tmp_path / f"{i}.png", PIXELS // (i + 1))
        found = read(tmp_path, "x=uint8[2,6,8,3]", "layout=nhwc")
        assert [name for name, _ in found] == ["0.png, 1.png", "2.png, 3.png", "4.png, 0.png"]
        assert np.array_equal(found[2][1]["x"], np.stack([PIXELS // 5, PIXELS]))

    def test_one_file_fills_a_batch(self, tmp_path: Path) -> None:
        ((name, arrays),) = read(png(tmp_path / "a.png"), "x=uint8[3,6,8,3]", "layout=nhwc")
        assert name == "a.png"
        assert np.array_equal(arrays["x"], np.stack([PIXELS] * 3))

    def test_sizes_that_can_not_be_one_batch(self, tmp_path: Path) -> None:
        png(tmp_path / "a.png")
        png(tmp_path / "b.png", PIXELS[:4])
        with pytest.raises(UsageError, match="one batch have different sizes"):
            read(tmp_path, "x=float32[2,h,w,3]", "layout=nhwc")
        assert [a["x"].shape[1] for _, a in read(tmp_path, "x=float32[n,h,w,3]", "layout=nhwc")] == [6, 4]

    def test_the_others_are_synthesized_and_claim_no_range(self, tmp_path: Path) -> None:
        png(tmp_path / "a.png")
        png(tmp_path / "b.png", PIXELS // 2)
        inputs = "x=float32[n,3,6,8];k=int64[n,4]"
        found = read(tmp_path, inputs, "scale=255", ranges=("k=0:9",))
        assert [a["k"].shape for _, a in found] == [(1, 4), (1, 4)]
        assert not np.array_equal(found[0][1]["k"], found[1][1]["k"])
        again = read(tmp_path, inputs, "scale=255", ranges=("k=0:9",))
        assert all(np.array_equal(a[1]["k"], b[1]["k"]) for a, b in zip(found, again, strict=True))
        wants = make_wants(samples=str(tmp_path), preprocess=("scale=255",))
        assert [s.name for s in real_inputs(wants, tuple(map(parse_input, inputs.split(";"))))] == ["x"]


class TestWhichFiles:
    def test_of_more_files_some_are_taken_evenly(self, tmp_path: Path) -> None:
        for i in range(10):
            np.save(tmp_path / f"{i}.npy", np.full(3, i, "f4"))
        files = sample_files(str(tmp_path), 4)
        assert ([name for name, _ in files.taken], files.found) == (["0.npy", "2.npy", "5.npy", "7.npy"], 10)
        wants = make_wants(samples=str(tmp_path), sample_limit=4)
        specs = (parse_input("x=float32[3]"),)
        samples = [(f"samples {name}", arrays) for name, arrays in read_samples(wants, specs)]
        (check,) = sample_checks(wants, specs, samples)
        assert check.numbers == {"files": 10, "taken": 4, "cases": 4, "range:x": "0 to 7"}
        assert "4 of 10 files" in check.reason
        assert not check.required

    @given(st.integers(1, 60), st.integers(1, 60))
    def test_never_one_twice_and_never_too_many(self, count: int, limit: int) -> None:
        taken = spread(count, limit)
        assert len(set(taken)) == len(taken) == min(count, limit)
        assert taken == sorted(taken)
        assert taken[0] == 0
        assert taken[-1] < count
        gaps = {b - a for a, b in pairwise(taken)}
        assert not gaps or max(gaps) - min(gaps) <= 1

    def test_folders_are_walked_and_other_files_counted(self, tmp_path: Path) -> None:
        for name in ("cats/1.npy", "dogs/1.npy", ".hidden/1.npy", ".DS_Store.npy"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            np.save(tmp_path / name, np.zeros(3, "f4"))
        (tmp_path / "labels.txt").write_text("cat, dog")
        files = sample_files(str(tmp_path), 64)
        assert ([name for name, _ in files.taken], files.ignored) == (["cats/1.npy", "dogs/1.npy"], 1)

    @pytest.mark.parametrize(
        ("name", "what"),
        [("none", "no samples at this path"), ("empty", "does not contain .npz"), ("a.gif", "samples are")],
    )
    def test_nothing_to_take(self, name: str, what: str, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "a.gif").write_bytes(b"GIF89a")
        with pytest.raises(UsageError, match=what):
            sample_files(str(tmp_path / name), 64)

    def test_the_first_alone_is_the_first_of_all(self, tmp_path: Path) -> None:
        png(tmp_path / "b.png")
        np.save(tmp_path / "a.npy", np.zeros((1, 6, 8, 3), "f4"))
        wants = make_wants(samples=str(tmp_path), preprocess=("layout=nhwc",))
        specs = (parse_input("x=float32[n,6,8,3]"),)
        (one_,), (first, _) = read_samples(first_alone(wants), specs), read_samples(wants, specs)
        assert one_[0] == first[0] == "a.npy"

    def test_arrays_and_images_mix(self, tmp_path: Path) -> None:
        png(tmp_path / "b.png")
        np.save(tmp_path / "a.npy", np.zeros((1, 6, 8, 3), "f4"))
        assert [name for name, _ in read(tmp_path, "x=float32[n,6,8,3]", "layout=nhwc")] == ["a.npy", "b.png"]


def wav(path: Path, values: Any, width: int = 2, rate: int = 16000) -> Path:
    """*values*: integers [frames] or [frames, channels]."""
    frames = np.atleast_2d(np.asarray(values, np.int64).T).T
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(frames.shape[1])
        sound.setsampwidth(width)
        sound.setframerate(rate)
        shifted = frames + 128 if width == 1 else frames
        sound.writeframes(
            b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in shifted.ravel())
        )
    return path


class TestSounds:
    @given(st.sampled_from([1, 2, 3, 4]), st.lists(st.floats(-1, 1), min_size=1, max_size=8))
    def test_every_width_is_its_full_scale(self, width: int, values: list[float]) -> None:
        most = 2 ** (8 * width - 1)
        whole = [min(round(v * most), most - 1) for v in values]
        data = b"".join(
            int(v + 128 * (width == 1)).to_bytes(width, "little", signed=width > 1) for v in whole
        )
        assert _decoded(data, width).tolist() == [v / most for v in whole]

    @pytest.mark.parametrize(("width", "least"), [(1, -128), (2, -32768), (3, -(2**23)), (4, -(2**31))])
    def test_a_file_of_every_width(self, width: int, least: int, tmp_path: Path) -> None:
        values = one(
            wav(tmp_path / "a.wav", [0, least, -least - 1, least // 2], width), "x=float32[t]", "rate=16000"
        )
        assert values.dtype == np.float32
        assert np.allclose(values, [0, -1, 1 - 1 / -least, -0.5], atol=1e-7)

    @pytest.mark.parametrize(
        ("inputs", "recipe", "expected"),
        [
            ("x=float32[t]", "rate=16000,channels=mono", [0.25, 0.25, 0]),
            ("x=float32[n,t]", "rate=16000,channels=mono", [[0.25, 0.25, 0]]),
            ("x=float32[2]", "rate=16000,channels=mono", [0.25, 0.25]),
            ("x=float32[n,5]", "rate=16000,channels=mono", [[0.25, 0.25, 0, 0, 0]]),
            ("x=float32[t]", "rate=16000,channels=mono,length=4", [0.25, 0.25, 0, 0]),
            ("x=float32[n,2,t]", "rate=16000", [[[0.5, 0, 0], [0, 0.5, 0]]]),
            ("x=float32[1,t,2]", "rate=16000,layout=ntc", [[[0.5, 0], [0, 0.5], [0, 0]]]),
            ("x=float32[t,2]", "rate=16000,layout=tc,length=1", [[0.5, 0]]),
        ],
    )
    def test_layouts_lengths_and_mixing(
        self, inputs: str, recipe: str, expected: Any, tmp_path: Path
    ) -> None:
        values = one(wav(tmp_path / "a.wav", [[16384, 0], [0, 16384], [0, 0]]), inputs, recipe)
        assert values.tolist() == expected

    @pytest.mark.parametrize(
        ("inputs", "recipe", "what"),
        [
            ("x=float32[t]", "rate=8000", "another rate"),
            ("x=float32[t]", "rate=16000", "several channels and the input none"),
            ("x=float32[n,1,t]", "rate=16000", "does not give the shape"),
            ("x=float32[8]", "rate=16000,length=4", "differs from the input's"),
            ("x=int16[t]", "rate=16000", "no input fits"),
            ("x=float32[a,b,c,d]", "rate=16000", "no input fits"),
        ],
    )
    def test_a_recipe_that_does_not_fit(self, inputs: str, recipe: str, what: str, tmp_path: Path) -> None:
        wav(tmp_path / "a.wav", [[1, 2], [3, 4]])
        with pytest.raises(UsageError, match=what):
            read(tmp_path, inputs, recipe)

    def test_without_a_recipe(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no --preprocess says how a sound becomes an input"):
            read(wav(tmp_path / "a.wav", [1, 2]), "x=float32[t]")

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda data: b"", "could not be read"),
            (lambda data: b"RIFFnone", "could not be read"),
            (lambda data: data[:20] + struct.pack("<H", 3) + data[22:], "could not be read"),  # IEEE float
            (lambda data: data[:-3], "is cut off"),
            (lambda data: data[:40] + bytes(4), "is cut off"),
        ],
    )
    def test_files_that_are_refused(
        self, change: Callable[[bytes], bytes], what: str, tmp_path: Path
    ) -> None:
        file = wav(tmp_path / "a.wav", range(50))
        file.write_bytes(change(file.read_bytes()))
        with pytest.raises(RefusedError, match=what) as caught:
            read(file, "x=float32[t]", "rate=16000")
        assert "a.wav" in caught.value.seen

    @given(
        changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6),
        cut=st.integers(0, 60),
    )
    def test_damaged_headers_are_read_or_refused(
        self, changes: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        file = wav(tmp_path_factory.getbasetemp() / "damaged.wav", range(12))
        data = bytearray(file.read_bytes())
        for place, value in changes:
            data[place] = value
        file.write_bytes(bytes(data[: len(data) - cut]))
        with suppress(MnnprepError):
            assert read_sound(file, "a.wav", SoundRecipe(rate=16000), 4, "float32").shape[1] == 4


class TestPrepare:
    """The whole way, in the command line's own workers."""

    @pytest.fixture(scope="class")
    @classmethod
    def net(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        weights = {"w": np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype("f4")}
        nodes = [
            node("Conv", ["x", "w"], ["c"]),
            node("GlobalAveragePool", ["c"], ["g"]),
            node("Flatten", ["g"], ["y"]),
        ]
        return save(
            tmp_path_factory.mktemp("net") / "net.onnx",
            nodes,
            [floats("x", "batch", 3, 8, 8)],
            [floats("y", "batch", 4)],
            weights,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def pictures(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("pictures")
        for i in range(3):
            Image.fromarray(np.roll(np.kron(PIXELS, np.ones((3, 3, 1), np.uint8)), 7 * i, 1)).save(
                root / f"{i}.jpg"
            )
        return root

    def test_real_cases_first_then_synthesized_ones_in_their_range(
        self, net: Path, pictures: Path, tmp_path: Path
    ) -> None:
        options = (
            "--samples",
            pictures,
            "--preprocess",
            "size=9,crop=8,scale=255,mean=0.5,std=0.25",
            "--dim",
            "batch=1:3",
            "--sample-limit",
            "2",
        )
        manifest = prepared(net, tmp_path / "a", *options)
        assert manifest.verdict.value == "proven"
        assert [c.origin for c in manifest.cases[:3]] == ["samples 0.jpg", "samples 1.jpg", "seed 0"]
        assert manifest.signature.dims["batch"].proven == [1, 2, 3]
        (recipe,) = manifest.source.options["preprocess"]
        assert (recipe["input"], recipe["crop"], recipe["mean"]) == ("x", [8, 8], [0.5] * 3)
        assert recipe["mnn_mean"] == [127.5] * 3
        assert manifest.source.options["sample_limit"] == 2
        assert len(manifest.source.options["samples"]) == 2
        assert manifest.tools["PIL"]
        (check,) = checks_of(manifest, "samples")
        low, high = map(float, str(check.numbers["range:x"]).split(" to "))
        assert manifest.signature.inputs[0].range == pytest.approx([low, high], rel=1e-5)
        assert -2 <= low < high <= 2
        report = (tmp_path / "a" / "report.html").read_text()
        assert "x from an image: size 9" in report
        assert "mean [127.5, 127.5, 127.5]" in report
        prepared(net, tmp_path / "b", *options)
        assert (tmp_path / "a" / "manifest.json").read_bytes() == (
            tmp_path / "b" / "manifest.json"
        ).read_bytes()
        assert call("verify", tmp_path / "a").code == 0

    def test_a_sound_fills_an_input(self, tmp_path: Path) -> None:
        sounds = tmp_path / "sounds"
        sounds.mkdir()
        wav(sounds / "long.wav", [16384, -16384, 8192, 0, 1, 2], rate=8000)
        wav(sounds / "short.wav", [32767], rate=8000)
        manifest = prepared(
            matmul(tmp_path / "net.onnx"),
            tmp_path / "out",
            "--samples",
            sounds,
            "--preprocess",
            "rate=8000",
            "--dim",
            "batch=1:3",
        )
        assert manifest.verdict.value == "proven"
        real = [
            load_arrays(tmp_path / "out" / c.path)["inputs/x"].tolist()
            for c in manifest.cases
            if c.origin.startswith("samples ")
        ]
        assert real == [[[0.5, -0.5, 0.25, 0]], [[32767 / 32768, 0, 0, 0]]]
        (recipe,) = manifest.source.options["preprocess"]
        assert recipe == {
            "kind": "sound",
            "input": "x",
            "rate": 8000,
            "channels": "all",
            "length": 0,
            "layout": "",
        }
        assert "x from a sound: rate 8000" in (tmp_path / "out" / "report.html").read_text()

    def test_one_corrupt_file_is_one_message(self, net: Path, pictures: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(pictures, broken)
        (broken / "1.jpg").write_bytes((pictures / "1.jpg").read_bytes()[:300])
        result = call("prepare", net, "-o", tmp_path / "out", "--samples", broken, "--preprocess", "size=8x8")
        assert result.code == 3
        assert "an image could not be decoded" in result.err
        assert "1.jpg" in result.err
        assert "Traceback" not in result.err
        assert not (tmp_path / "out").exists()

    def test_a_call_that_is_wrong(self, net: Path, pictures: Path, tmp_path: Path) -> None:
        for options, words in [
            ((), "no --preprocess says how an image becomes an input"),
            (("--preprocess", "size=8"), "does not give the shape of x"),
            (("--preprocess", "colour=red"), "not a key of an image's"),
        ]:
            result = call("prepare", net, "-o", tmp_path / "out", "--samples", pictures, *options)
            assert (result.code, words in result.err) == (2, True), result.err
