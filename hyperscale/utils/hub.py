"""Loads from folders and the Hugging Face hub: typed errors, no chatter, and whether the hub can be reached at all."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hyperscale.errors import HyperscaleError, ModelError, first_line

_PROBE_SECONDS = 3.0
_POINTER = b"version https://git-lfs"
_pinned: dict[tuple[str, str], str] = {}  # (hub's cache, hub id as the user wrote it) to commit


def split_revision(path: str) -> tuple[str, str | None]:
    """The repository and the revision of a hub id ``owner/name@revision``; None for the branch that is its default.

    A folder is returned as it is. Of a hub id that was pinned the revision is a commit.
    """
    from huggingface_hub import constants

    if Path(path).is_absolute() or Path(path).is_dir():
        return path, None
    name, _, revision = path.partition("@")
    return name, _pinned.get((constants.HF_HUB_CACHE, path)) or revision or None


def pin_revision(path: str) -> None:
    """Take the version that a hub id means now for all that this process loads of it, whatever moves meanwhile.

    Args:
        path: A hub id, with or without a revision; of a folder nothing is pinned.

    Raises:
        ModelError: Its ``config.json`` is neither cached nor to be had.
    """
    from huggingface_hub import constants

    if Path(path).is_absolute() or Path(path).is_dir():
        return
    key = (constants.HF_HUB_CACHE, path)
    _pinned.pop(key, None)
    _pinned[key] = cached_folder(path).name


def download_command(path: str) -> str:
    """The command that downloads a repository, given its hub id with or without a revision."""
    name, _, revision = path.partition("@")
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")


@contextmanager
def model_errors(failure: str) -> Iterator[None]:
    """Turn whatever stops the block into one typed error of one line.

    transformers raises a wide and unstable set of types for checkpoints that cannot be used, and all of them mean the
    same to the user.

    Args:
        failure: What did not work, the beginning of the message: "cannot load PATH".

    Raises:
        ModelError: The block ended with an error that is none of ours.
    """
    try:
        yield
    except HyperscaleError:
        raise
    except Exception as error:
        raise ModelError(f"{failure}: {first_line(error)}") from error


def load_config(path: str) -> Any:
    """The transformers configuration of a checkpoint.

    Args:
        path: A folder, or a hub id with or without a revision: ``owner/name@revision``.

    Raises:
        ModelError: It cannot be loaded.
    """
    from transformers import AutoConfig

    name, revision = split_revision(path)
    with model_errors(f"cannot load the configuration of {path}"):
        # Without `trust_remote_code` transformers asks on stdout.
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def download_file(name: str, file: str) -> Path:
    """A file of a repository on the hub, in the hub's cache; its folder is named by the commit.

    Args:
        name: The hub id.
        file: Path of the file in the repository.

    Raises:
        ModelError: It is neither cached nor to be had.
    """
    from huggingface_hub import hf_hub_download

    repository, revision = split_revision(name)
    with model_errors(f"cannot load {file} of {name}"):
        return Path(hf_hub_download(repository, file, revision=revision))


def cached_config(name: str) -> Path | None:
    """The ``config.json`` of a repository as the hub's cache has it; None if it does not."""
    found = _look_into_cache(name, "config.json")
    return found if isinstance(found, Path) else None


def available_file(name: str, file: str) -> Path | None:
    """A file of a repository from the hub's cache, else from the hub; None if it is in neither or cannot be had now."""
    found = _look_into_cache(name, file)
    if isinstance(found, Path):
        return found
    # The cache knows of files that a repository does not have, once they were asked for.
    if found is not None or not _ask_once(reachable):
        return None
    try:
        return download_file(name, file)
    except ModelError:
        return None


@cache
def _ask_once(question: Callable[[], bool]) -> bool:
    """The answer to a question that takes seconds where there is no network, and is asked many times at a start."""
    return question()


def _look_into_cache(name: str, file: str) -> Path | object | None:
    """Where the cache has a file; some object if it knows that there is none; None if it knows nothing of it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository, revision = split_revision(name)
    try:
        found = try_to_load_from_cache(repository, file, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else found


def cached_folder(name: str) -> Path:
    """The folder of the hub's cache that holds the version in use of a repository, once its ``config.json`` is loaded.

    Raises:
        ModelError: It is not there.
    """
    return download_file(name, "config.json").parent


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a checkpoint.

    Args:
        path: A folder, or a hub id with or without a revision: ``owner/name@revision``.

    Raises:
        ModelError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    folder = Path(path) if Path(path).is_dir() else None
    config = _check_tokenizer_files(folder) if folder else {}
    name, revision = split_revision(path)
    with model_errors(f"cannot load the tokenizer of {path}"):
        try:
            return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        except ValueError as error:
            if "custom code" not in str(error) and not config.get("auto_map"):
                raise
            raise ModelError(
                f"the tokenizer of {path} is code that comes with the checkpoint (auto_map), which is never run"
            ) from None


_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "spiece.model")


def _check_tokenizer_files(folder: Path) -> dict[str, Any]:
    """Refuse a folder whose tokenizer transformers would fail at in words for programmers.

    Returns:
        The contents of its ``tokenizer_config.json``.

    Raises:
        ModelError: It has none, or a file is no JSON object.
    """
    if not any((folder / name).is_file() for name in _VOCABULARIES) and not any(folder.glob("*.tiktoken")):
        raise ModelError(
            f"cannot load the tokenizer of {folder}: it has none (such as {_VOCABULARIES[0]}); copy its files from the "
            "model that this one was made from"
        )
    contents: dict[str, Any] = {}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            contents = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            check_pointer(file)
            raise ModelError(
                f"cannot load the tokenizer of {folder}: {name} is no JSON ({first_line(error)})"
            ) from None
        if not isinstance(contents, dict):
            raise ModelError(f"cannot load the tokenizer of {folder}: {name} is not a mapping")
    return contents if (folder / "tokenizer_config.json").is_file() else {}


def check_pointer(file: Path) -> None:
    """Refuse a file that stands for another one in Git LFS.

    Raises:
        ModelError: It is one.
    """
    try:
        with file.open("rb") as data:
            start = data.read(len(_POINTER))
    except OSError:
        return
    if start == _POINTER:
        raise ModelError(f"{file} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository")


def reachable() -> bool:
    """Whether the hub answers, whatever it answers; takes a few seconds at most."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_PROBE_SECONDS):
            return True
    except HTTPError:
        return True
    except (OSError, ValueError):
        return False


def silence_transformers() -> None:
    """Turn off transformers' own progress bars and notes for this process; errors still come as exceptions."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def quiet_datasets(*, offline: bool) -> Iterator[None]:
    """Keep `datasets` from drawing progress bars within the block and, offline, from retrying the hub."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    bars = datasets.is_progress_bar_enabled()
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        if bars:
            datasets.enable_progress_bars()
