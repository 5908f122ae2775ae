"""What a user may call a device; known without loading torch, for `--help` lists it."""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda", "xpu", "mps"]
DEVICES: tuple[Device, ...] = get_args(Device)
