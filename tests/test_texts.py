"""The cause of an exception is told in one line, and its end is never cut off."""

from __future__ import annotations

import itertools

import pytest
from torch import Tensor, jit, ones

from mnnprep.safety.error_text import LIMIT, cause, message

GRAPH = (
    'Graph execution error:\n\nDetected at node add defined at (most recent call last):\n  File "f.py", line'
    " 6, in <module>\n\n"
)
AUTOGRAPH = (
    'in user code:\n\n    File "f.py", line 5, in None  *\n        x @ y\n\n    ValueError: Dimensions must'
    " be equal\n"
)
KERAS = (
    "Exception encountered when calling Dense.call().\n\n\x1b[1mInput 0 is incompatible\x1b[0m\n\nArguments"
    " received by Dense.call():\n  • x=1"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\ntwo", "one"),
        ("", ""),
        (
            GRAPH + "Incompatible shapes: [2,3] vs. [4,3]\n\t [[{{node add}}]] [Op:__inference_f_12]",
            "Incompatible shapes: [2,3] vs. [4,3]",
        ),
        (KERAS, "Input 0 is incompatible"),
        (
            (
                'in user code:\n\n    File "f.py", line 5, in None  *\n        x @ y\n\n    ValueError:'
                " Dimensions must be equal\n"
            ),
            "ValueError: Dimensions must be equal",
        ),
        ("in user code:", "in user code:"),
        ("a" * LIMIT + "b" * LIMIT, "a" * 198 + " … " + "b" * 198),
    ],
)
def test_what_a_text_says(text: str, said: str) -> None:
    assert message(text) == said


def strict(x: Tensor) -> Tensor:
    if x.shape[0] > 1:
        raise ValueError("only one at a time, please")
    return x + ones(5)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (2, "ValueError: only one at a time, please"),
        (1, "RuntimeError: The size of tensor a (3) must match the size of tensor b (5) at"),
    ],
)
def test_torchscript_tells_its_error_at_the_end(rows: int, said: str) -> None:
    with pytest.raises(Exception, match="TorchScript") as caught:
        jit.script(strict)(ones(rows, 3))
    assert cause(caught.value).startswith(said)


def chain(*errors: BaseException) -> BaseException:
    for error, source in itertools.pairwise(errors):
        error.__cause__ = source
    return errors[0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NameError("name 'x' is not defined"), "NameError: name 'x' is not defined"),
        (AssertionError(), "AssertionError"),
        (KeyError("x"), "KeyError: 'x'"),
        (
            chain(RuntimeError("layer 3 failed\nsee below"), ValueError("real reason")),
            "RuntimeError: layer 3 failed, from ValueError: real reason",
        ),
        (chain(ValueError("a"), ValueError("a")), "ValueError: a"),
    ],
)
def test_the_cause_of_an_exception(error: BaseException, said: str) -> None:
    assert cause(error) == said


def test_a_chain_in_a_circle_ends() -> None:
    error = ValueError("a")
    error.__cause__ = chain(TypeError("b"), error)
    assert cause(error) == "ValueError: a, from TypeError: b"
