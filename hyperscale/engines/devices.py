"""Names of devices: ``cpu``, ``cuda`` and ``cuda:N``; which of them are here."""

import re

from hyperscale.errors import ModelError

_NAME = re.compile(r"cpu|cuda(:(0|[1-9]\d{0,3}))?")


def is_device_name(text: str) -> bool:
    """Whether a text names a device, be it here or not."""
    return _NAME.fullmatch(text) is not None


def device_kind(device: str) -> str:
    """What kind of device a name stands for: "cpu" or "cuda"."""
    return device.partition(":")[0]


def device_index(device: str) -> int | None:
    """N of ``cuda:N``; None if the name leaves it open."""
    index = device.partition(":")[2]
    return int(index) if index else None


def check_device(device: str) -> None:
    """Refuse devices that no engine runs on or that are not here.

    Raises:
        ModelError: It is one.
    """
    import torch

    if not is_device_name(device):
        raise ModelError(f"unknown device {device!r}; use cpu, cuda or cuda:N")
    if device_kind(device) != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ModelError(f"--device {device}: torch sees no CUDA device here; use --device cpu")
    if (device_index(device) or 0) >= count:
        names = (
            "one CUDA device here, cuda:0" if count == 1 else f"{count} CUDA devices here, cuda:0 to cuda:{count - 1}"
        )
        raise ModelError(f"there is no {device}: torch sees {names}")
