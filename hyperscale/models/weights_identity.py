"""Tells two checkpoints apart by all that decides what they generate, without reading all of large files.

Small files count in full. Of a large one the headers do, with the checksums that torch's format keeps of every tensor,
and samples of every tensor: training changes nearly every number of the tensors that it changes.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hyperscale.methods.core.dms_config import find_metadata
from hyperscale.models.weight_files import data_regions
from hyperscale.utils.hub import cached_folder, split_revision

_WHOLE = 256 << 20  # bytes of a file that is read in full: a fraction of a second
_BLOCK = 4096  # bytes of a sample
_SAMPLES = 8  # of a tensor
_EVENLY = 4096  # samples of a file whose format does not say where its tensors are
_CHUNK = 1 << 20
_HEADER = 128 << 20  # most bytes in front of the tensors, or behind them

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".jinja", ".model", ".tiktoken")
_NAMES = ("merges.txt", "vocab.txt")
_OF_TRAINING = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt", "scaler.pt")


def identify_weights(path: str) -> str:
    """What names the weights, configuration and tokenizer of a checkpoint.

    Args:
        path: A folder, or a hub id.

    Returns:
        Of a folder a hash of its files. Of a hub id that, with the commit in use: what the hub calls ``main`` moves.

    Raises:
        ModelError: The hub id is neither cached nor to be had, or FastDMS's files make no sense.
    """
    if not Path(path).is_dir():
        return f"{split_revision(path)[0]}@{cached_folder(path).name}"
    digest = hashlib.sha256()
    # What FastDMS's trainer leaves in the folder above decides as much as what is in this one.
    metadata = find_metadata(Path(path))
    if metadata is not None and Path(metadata.path).parent != Path(path):
        digest.update(Path(metadata.path).read_bytes())
    for file in sorted(Path(path).iterdir()):
        is_part = file.suffix in _SUFFIXES or file.name in _NAMES
        if is_part and file.name not in _OF_TRAINING and file.is_file():
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as data:
                for block in _all(data) if size <= _WHOLE else _sampled(data, file, size):
                    digest.update(block)
    return digest.hexdigest()[:32]


def _all(data: IO[bytes]) -> Iterator[bytes]:
    while block := data.read(_CHUNK):
        yield block


def _sampled(data: IO[bytes], file: Path, size: int) -> Iterator[bytes]:
    """What lies around the tensors, as far as it is short, and samples of each of them."""
    regions = data_regions(file)
    if not regions:
        yield from _samples(data, 0, size, _EVENLY)
        return
    # The header of safetensors stands in front, the directory of torch's format, with its checksums, behind.
    data.seek(0)
    yield data.read(min(regions[0][0], _HEADER))
    for first, length in regions:
        yield from _samples(data, first, length, _SAMPLES)
    end = max(first + length for first, length in regions)
    data.seek(end)
    yield data.read(_HEADER)


def _samples(data: IO[bytes], first: int, length: int, count: int) -> Iterator[bytes]:
    """Evenly spaced blocks of a part of a file, its first and its last among them; all of it, if that is little."""
    if length <= count * _BLOCK:
        data.seek(first)
        yield data.read(length)
        return
    for index in range(count):
        data.seek(first + (length - _BLOCK) * index // (count - 1))
        yield data.read(_BLOCK)
