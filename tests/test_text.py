"""Lists cut short, first lines and sizes as users read them."""

from __future__ import annotations

import pytest

from mnnprep.text import binary_size, decimal_size, first_line, listed


@pytest.mark.parametrize(
    ("items", "separator", "shown"),
    [
        ([], ", ", ""),
        (["a", "b"], ", ", "a, b"),
        (["a", "b", "c", "d"], ", ", "a, b and 2 more"),
        (["a", "b", "c"], "; ", "a; b; and 1 more"),
    ],
)
def test_a_list_is_cut_and_says_how_much_is_left(items: list[str], separator: str, shown: str) -> None:
    assert listed(items, 2, separator) == shown


def test_the_first_line() -> None:
    assert [first_line(text) for text in ("", "\n one \n two", "one")] == ["", "one", "one"]


def test_sizes() -> None:
    sizes = (0, 999, 1000, 999_499, 999_500, 3_412_345, 2_500_000_000, 2_500_000_000_000)
    assert [decimal_size(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1 kB",
        "999 kB",
        "1 MB",
        "3.41 MB",
        "2.5 GB",
        "2.5e+03 GB",
    ]
    assert [binary_size(size) for size in (512 << 20, 3 << 29)] == ["512 MiB", "1.50 GiB"]
