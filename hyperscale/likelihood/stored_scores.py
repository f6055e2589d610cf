"""Keeps the scores of every method in the measurement's folder, so that one that was stopped goes on where it was."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hyperscale.likelihood.documents import Document
from hyperscale.likelihood.scoring import TokenScores
from hyperscale.utils.files import write_atomic

FOLDER = "scores"
_SCHEMA = 1
_ARRAYS = ("nats", "full_nats", "kl", "kept", "full", "reads")


class StoredScores:
    """Scores in files, one a method and ratio, each under a hash of all that they depend on."""

    def __init__(self, folder: Path) -> None:
        """Scores in a measurement's folder, which need not exist."""
        self._folder = folder / FOLDER

    def load(self, identity: Mapping[str, Any]) -> TokenScores | None:
        """The scores that were stored under an identity; None if there are none, or they cannot be read."""
        try:
            with np.load(self._path(identity), allow_pickle=False) as arrays:
                full_reads = float(arrays["full_reads"])
                return TokenScores(**{name: arrays[name] for name in _ARRAYS}, full_reads=full_reads)
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):  # EOFError: of an empty file
            return None

    def store(self, identity: Mapping[str, Any], scores: TokenScores) -> None:
        """Store scores under an identity.

        Raises:
            OSError: The disk is full or fails.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(scores, name) for name in _ARRAYS}
        np.savez(buffer, **arrays, full_reads=np.float64(scores.full_reads))
        write_atomic(self._path(identity), buffer.getvalue())

    def _path(self, identity: Mapping[str, Any]) -> Path:
        text = json.dumps({"schema": _SCHEMA, **identity}, sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"


def hash_documents(documents: Sequence[Document]) -> str:
    """A hash of the documents' tokens, in their order."""
    return hashlib.sha256(json.dumps([document.ids for document in documents]).encode()).hexdigest()
