"""Finds the files that hold a checkpoint's weights and reads what they say of their tensors, not the tensors."""

import json
import os
import struct
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.errors import ModelError, first_line
from hyperscale.utils.hub import check_pointer

SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEX = tuple(f"{name}.index.json" for name in SINGLE)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_HEADER_LIMIT = 100_000_000  # bytes; that of the safetensors library
_AGAIN = "download or copy it again"


@dataclass(frozen=True)
class StoredTensor:
    """What a file says of a tensor.

    Attributes:
        name: Its name.
        dtype: Type of its numbers, as safetensors names it: "F32", "BF16", "F8_E4M3", …
        shape: Its shape.
        file: Where it is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path


def find_weight_files(folder: Path) -> list[Path]:
    """The files that a checkpoint's weights are read from, as transformers chooses them: safetensors before ``.bin``.

    Raises:
        ModelError: There are none, the index of shards is broken or names files that are not there, the folder has an
            adapter, or its weights have another format.
    """
    check_formats(folder)
    for single, index in zip(SINGLE, INDEX, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _read_index(folder / index)
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth"))]
    raise ModelError(
        f"{folder} has no weights: neither {SINGLE[0]} nor {SINGLE[1]} nor an index of their shards"
        + (f" (but {', '.join(others[:3])})" if others else "")
    )


def check_formats(folder: Path) -> None:
    """Refuse a folder with an adapter, or whose only weights are in llama.cpp's format; other weights may be missing.

    Raises:
        ModelError: It is one.
    """
    if adapter := [name for name in ADAPTER if (folder / name).is_file()]:
        raise ModelError(explain_adapter(str(folder), adapter[0]))
    if any((folder / name).is_file() for name in (*SINGLE, *INDEX)):
        return
    if gguf := sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf"):
        raise ModelError(explain_gguf(gguf[0]))


def explain_adapter(path: str, file: str) -> str:
    """What to do about a checkpoint with an adapter beside its weights."""
    return (
        f"{path} holds an adapter ({file}), which would not be applied: merge it into the weights with peft "
        "(merge_and_unload, then save_pretrained), or move the adapter's files elsewhere"
    )


def explain_gguf(path: Path) -> str:
    """What to do about a file of llama.cpp's format."""
    return (
        f"{path} is a GGUF file, which does not run here: pass the original checkpoint, or convert the file to a "
        f"folder of safetensors: transformers' from_pretrained({str(path.parent)!r}, gguf_file={path.name!r}) of model "
        "and tokenizer (it needs `pip install gguf`), then save_pretrained of both"
    )


def _read_index(path: Path) -> list[Path]:
    """The shards that an index names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        files = [path.parent / name for name in sorted(set(names))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is no index of shards ({first_line(error)}): {_AGAIN}") from None
    if not files:
        raise ModelError(f"{path} names no files: {_AGAIN}")
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(f"{path} names {missing[0]}{more}, not there: {_AGAIN}")
    return files


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint, by name.

    Raises:
        ModelError: As `find_weight_files`; or a file is broken, or a tensor is in two files.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in find_weight_files(folder):
        for tensor in read_header(file):
            if tensor.name in tensors:
                raise ModelError(
                    f"{tensor.name} is in both {tensors[tensor.name].file.name} and {file.name} of {folder}"
                )
            tensors[tensor.name] = tensor
    return tensors


def read_header(file: Path) -> list[StoredTensor]:
    """The tensors of one file.

    Raises:
        ModelError: The file is cut off or is not of its format.
    """
    if file.suffix == ".safetensors":
        return [
            StoredTensor(name, entry["dtype"], tuple(entry["shape"]), file)
            for name, entry in _safetensors(file).items()
        ]
    return _pickled(file)


def _safetensors(file: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: name to dtype, shape and data_offsets."""
    try:
        with file.open("rb") as data:
            size = os.fstat(data.fileno()).st_size
            (length,) = struct.unpack("<Q", data.read(8))
            if length > _HEADER_LIMIT or 8 + length > size:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(data.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            shape = entry.get("shape")
            is_shape = isinstance(shape, list) and all(type(size) is int for size in shape)
            if not is_shape or not isinstance(entry.get("dtype"), str):
                raise ValueError(f"its header does not say type and shape of {name}")
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError, RecursionError) as error:
        check_pointer(file)
        raise ModelError(f"{file} is no safetensors file ({first_line(error)}): {_AGAIN}") from None
    if end != size:
        raise ModelError(f"{file} has {size:,} bytes instead of {end:,}: {_AGAIN}")
    return header


def _pickled(file: Path) -> list[StoredTensor]:
    """The tensors of a file that torch wrote; their numbers stay on the disk."""
    import torch

    try:
        is_zip = zipfile.is_zipfile(file)
        state = torch.load(file, map_location="meta" if is_zip else "cpu", weights_only=True, mmap=is_zip or None)
        return [
            StoredTensor(str(name), _DTYPES.get(str(tensor.dtype), str(tensor.dtype)), tuple(tensor.shape), file)
            for name, tensor in state.items()
        ]
    except Exception as error:  # torch raises whatever the bytes make it do
        check_pointer(file)
        raise ModelError(f"{file} is no file of tensors ({first_line(error)}): {_AGAIN}") from None


_DTYPES = {
    f"torch.{long}": short
    for long, short in (("float64", "F64"), ("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16"))
}


def data_regions(file: Path) -> list[tuple[int, int]]:
    """Where in a file each tensor's numbers are: (first byte, number of bytes); none if its format does not say."""
    if file.suffix == ".safetensors":
        with file.open("rb") as data:
            start = 8 + struct.unpack("<Q", data.read(8))[0]
        offsets = sorted(entry["data_offsets"] for entry in _safetensors(file).values())
        return [(start + first, last - first) for first, last in offsets]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return [(entry.header_offset, entry.compress_size) for entry in archive.infolist()]
    return []


def load_tensors(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """Tensors of a checkpoint by name, those of ``names`` that it has.

    Raises:
        ModelError: As `read_tensors`.
    """
    found: dict[str, Any] = {}
    for file in find_weight_files(folder):
        found |= load_file_tensors(file, names)
    return found


def load_file_tensors(file: Path, names: Collection[str]) -> dict[str, Any]:
    """Tensors of one file by name, those of ``names`` that it has.

    Raises:
        ModelError: As `read_header`.
    """
    import torch
    from safetensors import safe_open

    wanted = [tensor.name for tensor in read_header(file) if tensor.name in names]
    if not wanted:
        return {}
    if file.suffix == ".safetensors":
        with safe_open(str(file), framework="pt") as data:
            return {name: data.get_tensor(name) for name in wanted}
    state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file) or None)
    return {name: state[name] for name in wanted}
