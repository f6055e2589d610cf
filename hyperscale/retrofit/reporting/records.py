"""Defines ``training.json``, the record of a retrofit and of each of its checkpoints."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from hyperscale.errors import RetrofitError, first_line
from hyperscale.retrofit.settings import Recipe
from hyperscale.utils.files import write_atomic
from hyperscale.utils.validation import validate

RECORD = "training.json"
#: What is held of a forward pass for the backward pass: each layer's input, from which the rest is computed again, or
#: all of it.
Activations = Literal["recomputed", "kept"]


class CheckpointRecord(BaseModel):
    """What ``training.json`` says of a checkpoint.

    Attributes:
        cr: Its compression ratio.
        steps: Optimiser steps it has seen, the hard phase included.
        tokens: Tokens it has seen, likewise.
        seconds: Time since the training began.
        kl_hard: KL(student || teacher) on held-out text under the gates of inference, in nats per token.
        kl_noisy: The same under the gates of training.
        alpha: Mean eviction under the gates of inference.
        reached_cr: The compression ratio that they reach on held-out text, by the recipe's own count.
        log: The trainer's log up to here.
        kept: Share that each KV head keeps on held-out text under the gates of inference, layer by layer.
        refused: Why the gate check refused it; empty if it did not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cr: float
    steps: int
    tokens: int
    seconds: float
    kl_hard: float
    kl_noisy: float
    alpha: float
    reached_cr: float
    log: list[dict[str, Any]]
    kept: list[list[float]] = []
    refused: str = ""


class TrainingRecord(BaseModel):
    """What ``training.json`` says of a retrofit; `hyperscale.models` reads the base from it.

    Attributes:
        model: The model as the user named it.
        base: Its checkpoint, a hub id or an absolute path.
        data: Path, column and number of entries of the data.
        documents: Numbers of documents to train on and held out, of tokens to train on, and of entries left out since
            their prompts fill a row.
        length: Tokens of a row.
        rows: Rows of a batch.
        loss: What counts in the loss: "all tokens", or "last reply" where documents begin with a prompt.
        weights: Type of the trained weights.
        recipe: All that the trainer was told.
        activations: What was held of a forward pass, each layer's input or all of it. Records of versions that did not
            say it have the former, which was their default.
        memory_gib: Estimated memory in GiB and, on a GPU, its peak so far.
        device: Name of the GPU, or "cpu".
        torch: Its version.
        transformers: Its version.
        dms: The checkpoints so far.
        settings: What the command was told, which decides whether it may go on with this training.
        date: When it began, which chat templates take for the present; None in records of versions that kept none.
        data_hash: Identifies the tokenised documents, in their order.
        base_id: Identifies the base's weights, configuration and tokenizer (`hyperscale.models.weights_identity`).
        finished: Whether the training is complete.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base: str
    data: dict[str, str | int]
    documents: dict[str, int]
    length: int
    rows: int
    loss: str
    weights: str
    recipe: Recipe
    activations: Activations = "recomputed"
    memory_gib: dict[str, float]
    device: str
    torch: str
    transformers: str
    dms: list[CheckpointRecord] = []
    settings: dict[str, Any] = {}
    date: datetime | None = None
    data_hash: str = ""
    base_id: str = ""
    finished: bool = False

    def write(self, folder: Path) -> None:
        """Write the record; what was there is replaced at once, so that a kill leaves one or the other."""
        write_atomic(folder / RECORD, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of a folder.

        Raises:
            RetrofitError: It is not one that this version wrote.
        """
        file = folder / RECORD
        try:
            contents = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RetrofitError(f"{file} cannot be read ({first_line(error)}): pass another --out") from None
        return validate(cls, contents, RetrofitError, str(file), "pass another --out")
