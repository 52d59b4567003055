"""The text form of --preprocess: what it means, what is refused, and that MNN computes the same from its
figures.
"""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnnprep.bundle.usage import preprocess_words
from mnnprep.errors import UsageError
from mnnprep.model.preprocess import (
    CHANNELS,
    FILTERS,
    IMAGE_LAYOUTS,
    ImageRecipe,
    Recipe,
    SoundRecipe,
    parse_preprocess,
)
from mnnprep.model.request import make_wants
from support.command import answer
from support.manifests import golden

IMAGENET = (
    "size=256,crop=224,filter=bicubic,channels=bgr,scale=255"
    ",mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc"
)


def test_an_image_recipe_in_full() -> None:
    assert parse_preprocess(IMAGENET) == ImageRecipe(
        size=(256,),
        crop=(224, 224),
        filter="bicubic",
        channels="bgr",
        scale=255.0,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        layout="nhwc",
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("size=32x48", {"size": (32, 48)}),
        ("crop=8x9, alpha=White", {"crop": (8, 9), "alpha": "white"}),
        ("mean=127.5,std=128", {"mean": (127.5,) * 3, "std": (128.0,) * 3}),
        (
            "channels=gray,layout=nhw,mean=0.5",
            {"channels": "gray", "layout": "nhw", "mean": (0.5,), "std": (1.0,)},
        ),
        ("x:size=4", {"input": "x", "size": (4,)}),
        ("serving/x:0:size=4", {"input": "serving/x:0", "size": (4,)}),
        ("dtype=uint8", {"dtype": "uint8"}),
    ],
)
def test_parts_of_an_image_recipe(text: str, fields: dict[str, object]) -> None:
    assert parse_preprocess(text) == ImageRecipe(**fields)  # type: ignore[arg-type]


def test_a_sound_recipe() -> None:
    assert parse_preprocess("rate=16000") == SoundRecipe(rate=16000)
    assert parse_preprocess("a:0:rate=8000,channels=mono,length=4000,layout=nt") == SoundRecipe(
        input="a:0", rate=8000, channels="mono", length=4000, layout="nt"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "could not be read"),
        ("size", "could not be read"),
        ("size=", "could not be read"),
        (":size=2", "could not be read"),
        ("size=2,,crop=1", "could not be read"),
        ("size=2,size=3", "gives size twice"),
        ("width=3", "width, which is not a key of an image's"),
        ("rate=16000,size=3", "size, which is not a key of a sound's"),
        ("length=5", "does not say their rate"),
        ("layout=nt", "does not say their rate"),
        ("size=0", "an invalid size"),
        ("size=99999", "an invalid size"),
        ("size=2x3x4", "size of 3 sides"),
        ("size=-3", "an invalid size"),
        ("size=²", "an invalid size"),
        ("filter=area", "an unknown filter"),
        ("channels=rgba", "an unknown channels"),
        ("layout=nwhc", "an unknown layout"),
        ("layout=hw", "a layout without channels for rgb"),
        ("mean=1:2", "2 values of mean for 3 channels"),
        ("channels=gray,std=1:2:3", "3 values of std for 1 channel"),
        ("mean=a", "not a number"),
        ("mean=nan", "not finite"),
        ("std=0", "not finite and above 0"),
        ("std=-1", "not finite and above 0"),
        ("scale=1e-320", "not finite and above 0"),
        ("scale=1:2", "several values of scale"),
        ("dtype=uint8,scale=255", "scales an input that stays uint8"),
        ("rate=0", "an invalid rate"),
    ],
)
def test_texts_that_are_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what.replace("(", r"\(")) as caught:
        parse_preprocess(text)
    assert caught.value.next


@given(
    st.builds(
        ImageRecipe,
        input=st.sampled_from(["", "x", "in:0"]),
        size=st.sampled_from([(), (7,), (5, 9)]),
        filter=st.sampled_from(FILTERS),
        channels=st.sampled_from(["rgb", "bgr"]),
        scale=st.floats(1e-3, 1e3),
        layout=st.sampled_from(["nchw", "nhwc", "chw"]),
        mean=st.tuples(*[st.floats(-1e3, 1e3)] * 3),
        std=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    )
)
def test_what_is_written_is_read_back(recipe: ImageRecipe) -> None:
    figures = {
        "mean": ":".join(map(repr, recipe.mean)),
        "std": ":".join(map(repr, recipe.std)),
        "scale": repr(recipe.scale),
    }
    words = figures | {"filter": recipe.filter, "channels": recipe.channels, "layout": recipe.layout}
    words |= {"size": "x".join(map(str, recipe.size))} if recipe.size else {}
    text = (f"{recipe.input}:" if recipe.input else "") + ",".join(f"{k}={v}" for k, v in words.items())
    assert parse_preprocess(text) == recipe
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        recipe = parse_preprocess(text)
    except UsageError:
        return
    assert isinstance(recipe, SoundRecipe) or (
        len(recipe.mean) == CHANNELS[recipe.channels] and recipe.layout in IMAGE_LAYOUTS
    )


def test_wants_take_one_of_each_kind() -> None:
    wants = make_wants(samples="d", preprocess=("size=4", "rate=8000"), sample_limit=3)
    assert (len(wants.preprocess), wants.sample_limit) == (2, 3)
    assert msgspec.json.decode(msgspec.json.encode(wants), type=type(wants)) == wants
    for options, what in [
        ({"preprocess": ("size=4", "x:size=5"), "samples": "d"}, "twice for one kind"),
        ({"preprocess": ("size=4",)}, "goes with --samples"),
        ({"samples": "d", "sample_limit": 0}, "must be at least 1"),
    ]:
        with pytest.raises(UsageError, match=what):
            make_wants(**options)  # type: ignore[arg-type]


IN_MNN = """
import json, sys
import MNN, numpy as np
recipe = json.loads(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
config = {"sourceFormat": MNN.CV_ImageFormat_RGB,
          "destFormat": getattr(MNN, "CV_ImageFormat_" + recipe["channels"]),
          "filterType": MNN.CV_Filter_NEAREST,
          "mean": (*recipe["mean"], 0.0), "normal": (*recipe["normal"], 0.0)}
process = MNN.CVImageProcess(config)
process.setMatrix(MNN.CVMatrix())
zeros = np.zeros((1, 3, 6, 5), np.float32)
tensor = MNN.Tensor(zeros.shape, MNN.Halide_Type_Float, zeros, MNN.Tensor_DimensionType_Caffe)
process.convert(pixels, 5, 6, 0, tensor)
answer = np.array(tensor.getNumpyData(), copy=True).ravel().tolist()
"""


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_mnn_computes_the_same_from_its_mean_and_normal(channels: str) -> None:
    pytest.importorskip("MNN")
    from mnnprep.reference.pictures import _arranged

    recipe = parse_preprocess(f"channels={channels},scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225")
    assert isinstance(recipe, ImageRecipe)
    given_ = {"channels": channels.upper(), "mean": recipe.mnn_mean, "normal": recipe.mnn_normal}
    theirs = np.reshape(answer(IN_MNN, json.dumps(given_)), (3, 6, 5))
    ours = _arranged(np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8), recipe, "float32")
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.parametrize(
    "options",
    [None, 3, [3], [{"kind": "image", "size": "\n#"}], [{"kind": "x"}], [{"kind": "image", "mean": ["*/"]}]],
)
def test_a_report_of_foreign_options_says_nothing_of_them(options: object) -> None:
    manifest = golden("proven")
    source = msgspec.structs.replace(
        manifest.source, options={**manifest.source.options, "preprocess": options}
    )
    assert preprocess_words(msgspec.structs.replace(manifest, source=source)) == []


def test_a_report_keeps_names_inside_its_comments() -> None:
    manifest = golden("proven")
    recipe = {"kind": "image", "input": "x\n*/ rm", "mean": [1, 2, 3], "scale": 255}
    source = msgspec.structs.replace(manifest.source, options={"preprocess": [recipe]})
    words = preprocess_words(msgspec.structs.replace(manifest, source=source))
    assert words[0].startswith("x__/ rm from an image: filter bilinear")  # no star: no comment ends here
    assert (
        words[1]
        == "the same by MNN ImageProcess: destFormat RGB, mean [255, 510, 765], normal [0.00392156863,"
        " 0.00392156863, 0.00392156863]"
    )
