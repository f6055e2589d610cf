"""The filter of system calls, run by an interpreter of its own: what it says to every number, on both machines."""

import platform
import re
import struct
from pathlib import Path

import pytest

from hyperscale.scoring.sandbox.child import syscalls
from hyperscale.scoring.sandbox.child.syscall_numbers import CHECKED, FILES, PLAIN

ALLOWED, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50026
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OWN = 4242


def verdict(code, number, arch, arguments=()):
    """What the kernel's machine for classic BPF returns for a call."""
    data = struct.pack("iIQ6Q", number - (1 << 32) * (number >> 31), arch, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("HBBI", code))
    place, word = 0, 0
    while True:
        operation, true, false, value = steps[place]
        place += 1
        match operation:
            case 0x20:
                (word,) = struct.unpack_from("I", data, value)
            case 0x54:
                word &= value
            case 0x05:
                place += value
            case 0x15 | 0x35 | 0x45:
                holds = {0x15: word == value, 0x35: word >= value, 0x45: word & value != 0}[operation]
                place += true if holds else false
            case 0x06:
                return value
            case _:
                raise AssertionError(hex(operation))


@pytest.fixture(params=[(machine, files) for machine in ARCHITECTURES for files in (True, False)], ids=str)
def ask(request, monkeypatch):
    """Asks the filter of a machine about a call by its name or number."""
    machine, files = request.param
    monkeypatch.setattr(syscalls.platform, "machine", lambda: machine)
    monkeypatch.setattr(syscalls.sys, "platform", "linux")
    code = syscalls._filter_code(OWN, files)
    column = list(ARCHITECTURES).index(machine)

    def ask(call, *arguments, arch=ARCHITECTURES[machine]):
        number = {**PLAIN, **FILES, **CHECKED}[call][column] if isinstance(call, str) else call
        return verdict(code, number, arch, [argument % (1 << 64) for argument in arguments])

    ask.files, ask.column = files, column
    return ask


def test_what_is_listed_is_allowed_and_nothing_else(ask):
    listed = {numbers[ask.column] for numbers in ({**PLAIN, **FILES} if ask.files else PLAIN).values()} - {None}
    checked = {numbers[ask.column] for numbers in CHECKED.values()}
    for number in {*range(1000), *range(1 << 30, (1 << 30) + 1000), 0xFFFFFFFF} - checked:
        new = 424 <= number < 1 << 30
        assert ask(number) == (ALLOWED if number in listed else ENOSYS if new else EPERM), number


def test_calls_of_other_architectures_are_refused(ask):
    for arch in (0x40000003, 0x40000028, 0, *set(ARCHITECTURES.values())):
        if arch != list(ARCHITECTURES.values())[ask.column]:
            assert {ask(number, arch=arch) for number in range(600)} == {EPERM}


def test_signals_and_limits_reach_nobody_else(ask):
    for call in ("kill", "tgkill"):
        assert ask(call, OWN, 9) == ALLOWED
        assert {ask(call, other, 9) for other in (1, 0, -1, -OWN, OWN + 1)} == {EPERM}
    assert ask("prlimit64", 0, 7) == ask("prlimit64", OWN, 7) == ALLOWED
    assert ask("prlimit64", 1, 7) == EPERM


def test_no_descriptor_can_be_made_to_signal(ask):
    fcntl = {command: ask("fcntl", 3, command) for command in [*range(64), *range(1024, 1050)]}
    assert {c for c, said in fcntl.items() if said == ALLOWED} == {0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032, 1034}
    assert ask("fcntl", 3, 4, 0x800) == ALLOWED  # O_NONBLOCK
    assert ask("fcntl", 3, 4, 0x2000) == ask("fcntl", 3, 4, 0x2800) == EPERM  # O_ASYNC
    assert ask("ioctl", 3, 0x5401) == ask("ioctl", 3, 0x5421) == ALLOWED  # TCGETS, FIONBIO
    for request in (0x8901, 0x8902, 0x5452, 0x5412, 0x5410, 0x540E, 0):  # FIOSETOWN, SIOCSPGRP, FIOASYNC, TIOCSTI, …
        assert ask("ioctl", 3, request) == ask("ioctl", 3, request + (1 << 32)) == EPERM


def test_threads_but_no_processes_and_no_datagrams(ask):
    if not ask.files:
        assert {ask(call, 0x10F00) for call in ("clone", "socketpair", "sendto", "prctl")} == {EPERM}
        return
    assert ask("clone", 0x3D0F00) == ALLOWED  # a thread, as the C library makes it
    assert {ask("clone", flags) for flags in (17, 0x4111, 0x10000000, 0x10F00 | 0x40000000)} == {EPERM}
    assert ask("socketpair", 1, 1) == ask("socketpair", 1, 1 | 0x80000) == ALLOWED
    assert ask("socketpair", 1, 2) == ask("socketpair", 1, 5 | 0x80000) == EPERM
    assert ask("sendto", 3, 1, 1, 0, 0, 0) == ALLOWED
    assert ask("sendto", 3, 1, 1, 0, 4096, 16) == ask("sendto", 3, 1, 1, 0, 1 << 32, 16) == EPERM
    assert ask("prctl", 15) == ALLOWED
    assert {ask("prctl", option) for option in (1, 4, 22, 36, 38, 62, 0x59616D61)} == {EPERM}


def test_numbers_are_those_of_this_machine():
    header = next(iter(Path("/usr/include").glob("*/asm/unistd_64.h")), None)
    if header is None or platform.machine() != "x86_64":
        pytest.skip("no headers of x86-64 here")
    found = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())}
    for name, (number, _) in {**PLAIN, **FILES, **CHECKED}.items():
        assert found[name] == number, name
