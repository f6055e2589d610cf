"""Numbers as people read them."""

import pytest

from hyperscale.methods.arm import point_label
from hyperscale.utils.quantities import format_length


@pytest.mark.parametrize(
    ("number", "text"), [(256, "256"), (1024, "1K"), (2**14, "16K"), (2**20, "1M"), (1500, "1500")]
)
def test_a_length_has_a_binary_prefix_where_that_is_exact(number, text):
    assert format_length(number) == text


def test_a_point_is_written_as_in_pictures():
    assert point_label(4, 16384, 8.0) == "4-16K-8"
    assert point_label(1, 1536, 2.5) == "1-1536-2.5"
    assert point_label(1, 1024, 1.0, 1024) == "1-1K-1024t"
