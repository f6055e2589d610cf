"""Declares the settings that say what is retrofitted and on what texts."""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, field_validator

from hyperscale.utils.settings import setting

#: What the paper trained on, as ``--data`` names it.
OPENR1 = "hub:open-r1/OpenR1-Math-220k"
#: What stands before the name of a data set of the hub.
HUB: Final = "hub:"
#: What ``--data`` and ``--prompts`` take for texts and messages that the model writes itself.
OWN: Final = "self"


class Sources(BaseModel):
    """Which model is retrofitted, on what data, and where its checkpoints go."""

    model: str = setting(..., "Model to start from: a name, a folder or a hub id.")
    data: str = setting(
        OPENR1,
        "JSONL, Parquet or plain text file, or a folder of them; hub:NAME; or self.",
        details="hub:NAME streams a data set; of one with the fields of OpenR1-Math-220k, the traces that verify. "
        "self: the model writes its own.",
    )
    prompts: str | None = setting(
        None,
        "Prompts that --data self answers: a file, a folder of them, or self.",
        unset="the opening of the chat template",
        details="JSONL or Parquet with a column prompt, problem, question or text, or a text file with one a line. "
        "self: the model writes the messages too, as many as it takes; a folder of that name is ./self.",
    )
    own_tokens: int = setting(
        4_000_000, "Tokens that --data self writes at most, to within a document.", ge=1, le=10**12
    )
    own_temperature: float = setting(1.0, "Temperature at which --data self writes.", gt=0, le=10)
    own_top_p: float = setting(
        1.0,
        "Nucleus mass from which --data self draws.",
        details="1 is the model's own distribution, which small models lose themselves in over long documents.",
        gt=0,
        le=1,
    )
    out: Path = setting(
        ...,
        "Folder for the checkpoints, e.g. dms8/, and training.json.",
        details="New, empty, or that of the same retrofit, which then goes on. A dry run needs none.",
    )
    column: str | None = setting(None, "Column of the data.", unset="messages, else text, else ids")
    whole_chats: bool = setting(
        False, "Count whole chats in the loss, not their last reply alone.", option="all-tokens"
    )

    @field_validator("data")
    @classmethod
    def _write_data_as_path(cls, data: str) -> str:
        return data if data == OWN or data.startswith(HUB) else _write_path(data)

    @field_validator("prompts", mode="before")
    @classmethod
    def _write_prompts_as_path(cls, prompts: Any) -> Any:
        return prompts if prompts == OWN or not isinstance(prompts, str | Path) else _write_path(prompts)

    @property
    def prompts_source(self) -> Path | Literal["self"] | None:
        """The file or folder of prompts, or "self"."""
        if self.prompts is None or self.prompts == OWN:
            return OWN if self.prompts else None
        return Path(self.prompts)


def _write_path(path: str | Path) -> str:
    """A path in the one form in which a training that goes on compares it; one that is called self keeps its dot."""
    text = str(Path(path))
    return f"./{text}" if text == OWN else text
