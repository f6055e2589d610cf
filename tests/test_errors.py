"""Messages of one line."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from hyperscale.errors import first_line


class Model(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def check(cls, value):
        if value < 0:
            raise ValueError("there is no room")
        return value


@pytest.mark.parametrize(("size", "reason"), [(-1, "Value error, there is no room"), ("x", "Input should be a valid")])
def test_pydantics_mistakes_say_what_is_wrong(size, reason):
    with pytest.raises(ValidationError) as caught:
        Model(size=size)
    line = first_line(caught.value)
    assert line.startswith("1 validation error for Model: size ")
    assert reason in line
    assert "type=" not in line


def test_a_line_that_ends_in_a_colon_is_read_on():
    assert first_line(ValueError("Wrong:\nthe width")) == "Wrong: the width"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
