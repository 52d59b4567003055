"""Protobuf's text format without a schema."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.prototext import Message, Scalar, parse, write

TEXT = """
# a comment: { not a message }
name: "a \\"net\\"" # behind
layer { name: 'x'; type: "Conv" "olution", convolution_param: < num_output: 0x10 kernel_size: [3, 5] pad: -1 >
  }
layer { name: "unknown" mystery_param { depth { value: 1.5e-3 } flag: true } }
"""


def test_every_form_is_read() -> None:
    net = parse(TEXT)
    first, second = net.messages("layer")
    assert net.text("name") == 'a "net"'
    assert (first.text("name"), first.text("type")) == ("x", "Convolution")
    param = first.message("convolution_param")
    assert (param.integer("num_output"), param.integers("kernel_size"), param.integer("pad")) == (
        16,
        [3, 5],
        -1,
    )
    assert second.message("mystery_param").message("depth").number("value") == 1.5e-3
    assert second.message("mystery_param").flag("flag", False)
    assert not second.message("absent").has("anything")


def test_what_no_definition_knows_is_written_again() -> None:
    assert parse(write(parse(TEXT))) == parse(TEXT)
    assert "mystery_param {\n    depth {\n      value: 1.5e-3" in write(parse(TEXT))


names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
scalars = st.one_of(
    st.integers().map(lambda i: Scalar(str(i))), st.text(max_size=12).map(lambda t: Scalar(t, True))
)
messages = st.recursive(
    st.builds(Message),
    lambda inner: st.builds(Message, st.lists(st.tuples(names, st.one_of(scalars, inner)), max_size=4)),
    max_leaves=8,
)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(messages)
def test_whatever_is_written_reads_back(message: Message) -> None:
    assert parse(write(message)) == message


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('layer {\n  name: "x"\n', 2, "truncated"),
        ('name: "x"\n}', 2, "closes nothing"),
        ('name "x"', 1, "neither a colon nor a message"),
        ("\n\nlayer { name: @ }", 3, "unexpected '@'"),
        ("dim: [1, 2", 1, "truncated"),
        ("a {" * 70 + "}" * 70, 1, "nested"),
        ("{ }", 1, "instead of a field's name"),
        ("name:", 1, "truncated"),
    ],
)
def test_an_error_says_the_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(RefusedError, match="the prototxt can't be read") as caught:
        parse(text)
    assert f"line {line}:" in caught.value.seen
    assert reason in caught.value.seen


@pytest.mark.parametrize("read", ["integer", "number"])
def test_a_value_of_the_wrong_kind_says_the_line(read: str) -> None:
    with pytest.raises(RefusedError) as caught:
        getattr(parse("\ndim: wide"), read)("dim")
    assert "line 2: dim is 'wide'" in caught.value.seen
