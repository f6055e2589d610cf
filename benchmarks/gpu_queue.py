"""Runs a list of measurements over the GPUs of a machine: timings alone on a card, others side by side.

Usage: python benchmarks/gpu_queue.py benchmarks/gpu_queue.yaml --out DIR --set smollm2=FOLDER
       python benchmarks/gpu_queue.py … --only attention,small-1,small-2 --gpus 2 --timing 1
       python benchmarks/gpu_queue.py … --list                              # the commands, and whether they are done

The file lists jobs, most important first:

    - name: attention                # also of its log, DIR/attention.log
      command: python benchmarks/retrofit_attention.py
      minutes: 3                     # it is ended after so many
      alone: true                    # nothing else on its card: it times something
      gpus: 1                        # how many cards it sees
      share: 2                       # of the --slots of a card, where it is not alone
      after: [own-texts]             # jobs that have to have ended well
      files: ["{out}/T/self.jsonl"]  # files that have to be there

{out} is DIR, and {NAME} what --set NAME=VALUE says; jobs that name something that was not set are left out. The first
--timing cards are kept for jobs that run alone while any is left, the others take several at a time. A job that ended
well is passed over, so the same command goes on where another ended. The file is read again while jobs run: a job that
is added to it is run, and a smaller number of minutes ends one. Commands run in bash, in the current folder, with
CUDA_VISIBLE_DEVICES set; DIR/status.txt says what runs. Where nothing runs and only files are missing, it waits for
--patience minutes, as something else may bring them.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hyperscale.utils.files import write_atomic


class Job(BaseModel):
    """A measurement: see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.+-]+$")
    command: str
    minutes: float = Field(default=10, gt=0)
    alone: bool = False
    gpus: int = Field(default=1, ge=1)
    share: int = Field(default=1, ge=1)
    after: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Running(NamedTuple):
    """A job that runs on some cards since a time, of `time.monotonic`."""

    job: Job
    process: subprocess.Popen[bytes]
    cards: tuple[int, ...]
    begun: float


class Queue:
    """Jobs of a file, the cards of a machine, and what runs on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._out: Path = args.out
        self._values = dict(each.split("=", 1) for each in args.set) | {"out": str(args.out)}
        self._running: dict[str, Running] = {}
        self._failed: set[str] = set()
        self._idle_since: float | None = None
        self._jobs: list[Job] = []

    def read(self) -> list[Job]:
        """The file's jobs, with what was set put in; as they were before if it cannot be read now."""
        try:
            listed = yaml.safe_load(self._args.file.read_text(encoding="utf-8"))
            jobs = TypeAdapter(list[Job]).validate_python(listed)
        except (OSError, yaml.YAMLError, ValidationError) as error:
            if not self._jobs:
                sys.exit(f"{self._args.file} cannot be used: {error}")
            print(f"{self._args.file} cannot be read now: {error}", flush=True)
            return self._jobs
        only = self._args.only.split(",") if self._args.only else [job.name for job in jobs]
        if unknown := set(only) - {job.name for job in jobs}:
            sys.exit(f"{self._args.file} has no job {sorted(unknown)[0]}")
        filled = (self._fill(job) for job in jobs if job.name in only)
        self._jobs = [job for job in filled if job is not None]
        return self._jobs

    def _fill(self, job: Job) -> Job | None:
        """The job with its {names} replaced; None if one of them has no value."""
        text = {"command": job.command, "files": job.files}
        used = re.findall(r"\{(\w+)\}", job.command + " ".join(job.files))
        if any(name not in self._values for name in used):
            return None
        for name in used:
            text["command"] = str(text["command"]).replace(f"{{{name}}}", self._values[name])
            text["files"] = tuple(file.replace(f"{{{name}}}", self._values[name]) for file in text["files"])
        return job.model_copy(update=text)

    def is_done(self, name: str) -> bool:
        """Whether a job has ended well, now or in an earlier call."""
        return (self._out / f"{name}.done").is_file()

    def step(self) -> bool:
        """End what is due, begin what can begin; whether anything runs or may yet begin for want of a file."""
        jobs = self.read()
        for running in list(self._running.values()):
            self._look_after(running, next((job for job in jobs if job.name == running.job.name), running.job))
        waiting = [
            job
            for job in jobs
            if job.name not in self._running and job.name not in self._failed and not self.is_done(job.name)
        ]
        # On cards that are kept for timings others begin once no timing waits; where all are kept, in their turn.
        possible = self._list_possible(waiting)
        is_kept = any(job.alone for job in possible) and self._args.timing < self._args.gpus
        missing: dict[str, list[str]] = {}
        for job in possible:
            if not all(map(self.is_done, job.after)):
                continue
            if absent := [file for file in job.files if not Path(file).exists()]:
                missing[job.name] = absent
                continue
            if cards := self._find_cards(job, is_kept):
                self._begin(job, cards)
            elif job.gpus == self._args.gpus:
                break  # it wants all cards: what stands behind it would keep it waiting for ever
            else:
                is_kept |= job.alone
        self._tell()
        return bool(self._running) or self._is_worth_waiting(missing)

    def _is_worth_waiting(self, missing: dict[str, list[str]]) -> bool:
        """Whether to wait, while nothing runs, for files that jobs miss; says which, once."""
        if not missing:
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
            for name, files in missing.items():
                print(f"{name} waits for {', '.join(files)}", flush=True)
        return time.monotonic() - self._idle_since < 60 * self._args.patience

    def _list_possible(self, waiting: list[Job]) -> list[Job]:
        """Those that may yet begin: there are cards enough, and what they come after has not failed."""
        possible = [job for job in waiting if job.gpus <= self._args.gpus]
        while True:
            alive = {job.name for job in possible} | self._running.keys()
            left = [job for job in possible if all(name in alive or self.is_done(name) for name in job.after)]
            if len(left) == len(possible):
                return left
            possible = left

    def _look_after(self, running: Running, job: Job) -> None:
        seconds = time.monotonic() - running.begun
        code = running.process.poll()
        if code is None and seconds > 60 * job.minutes:
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
            code = running.process.wait()
        if code is None:
            return
        del self._running[job.name]
        if code == 0:
            write_atomic(self._out / f"{job.name}.done", f"{seconds:.0f} s\n")
        else:
            self._failed.add(job.name)
        print(f"{job.name}: {'done' if code == 0 else f'ended with {code}'} after {seconds:.0f} s", flush=True)

    def _find_cards(self, job: Job, is_kept: bool) -> tuple[int, ...]:
        """Cards for a job, those that are kept for timings among them or not; none if too few are free."""
        kept, others = range(self._args.timing), range(self._args.timing, self._args.gpus)
        # One that wants more than the others are has to take kept ones too.
        takes_all = job.alone or job.gpus > len(others)
        order = [*kept, *others] if takes_all else [*others, *(() if is_kept else kept)]
        free = [card for card in order if self._has_room(job, card)]
        return tuple(sorted(free[: job.gpus])) if len(free) >= job.gpus else ()

    def _has_room(self, job: Job, card: int) -> bool:
        there = [running.job for running in self._running.values() if card in running.cards]
        if job.alone or any(each.alone for each in there):
            return not there
        return sum(each.share for each in there) + job.share <= self._args.slots

    def _begin(self, job: Job, cards: tuple[int, ...]) -> None:
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, cards)), "PYTHONUNBUFFERED": "1"}
        with (self._out / f"{job.name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", job.command], stdout=log, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,  # with all that it starts
            )  # fmt: skip
        self._running[job.name] = Running(job, process, cards, time.monotonic())
        self._idle_since = None

    def _tell(self) -> None:
        now = time.monotonic()
        lines = [
            f"{running.job.name} on {','.join(map(str, running.cards))} for {now - running.begun:.0f} s"
            for running in self._running.values()
        ]
        write_atomic(self._out / "status.txt", "\n".join(lines) + "\n")

    def end(self) -> None:
        """End what runs."""
        for running in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)


def count_gpus() -> int:
    """GPUs of this machine; 1 where there is none, to try a list."""
    with suppress(OSError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
        return max(1, listed.count("GPU "))
    return 1


def main(argv: list[str] | None = None) -> int:
    """List or run the jobs; 1 if some did not end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for logs and results")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="what {NAME} is in commands")
    parser.add_argument("--only", help="names of jobs, with commas")
    parser.add_argument("--gpus", type=int, default=0, help="cards to use (all)")
    parser.add_argument("--timing", type=int, help="cards for jobs that run alone (half of them, at least one)")
    parser.add_argument("--slots", type=int, default=4, help="jobs side by side on one of the others")
    parser.add_argument("--patience", type=float, default=1, help="minutes to wait for files while nothing runs")
    parser.add_argument("--list", action="store_true", help="print the commands, and run nothing")
    args = parser.parse_args(argv)
    if wrong := next((each for each in args.set if "=" not in each), None):
        parser.error(f"--set {wrong}: write NAME=VALUE")
    args.gpus = args.gpus or count_gpus()
    args.timing = min(args.timing or max(1, args.gpus // 2), args.gpus)
    args.out.mkdir(parents=True, exist_ok=True)
    queue = Queue(args)
    if args.list:
        for job in queue.read():
            print(f"{'done' if queue.is_done(job.name) else '    '} {job.name}: {job.command}")
        return 0
    try:
        while queue.step():
            time.sleep(0.5)
    finally:
        queue.end()
    missing = [job.name for job in queue.read() if not queue.is_done(job.name)]
    print(f"not done: {', '.join(missing)}" if missing else "all done")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
