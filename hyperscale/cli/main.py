"""The command line ``hyperscale``: one line on stderr and exit code 2 for everything that stops a command.

Exit code 1 belongs to ``hyperscale gate`` alone: an accuracy or a cost got worse. Whatever else ends a command is 2: a
mistake, a signal, a full disk, an output that nobody reads, a defect.

Only the standard library's small modules are imported here: from the first moment on, signals end a command in a line.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from types import TracebackType

    import typer

FAILED, REGRESSION = 2, 1
#: Set to anything, an unforeseen error shows its traceback.
TRACEBACK = "HYPERSCALE_TRACEBACK"
_LEAST_MEMORY = 2 << 30  # bytes of address space in which numpy and torch can be loaded
_LONGEST_NAME = 100  # characters of a path in a message
_BROKEN_PIPE = "error: nobody reads the output any more (broken pipe): finished work is kept"
_OUT_OF_MEMORY = "error: out of memory: free some, or raise the limit on this process (ulimit -v)"
# How libraries say it, when they are loaded or later.
_MEMORY_PHRASES = ("failed to map segment", "annot allocate memory", "can't allocate memory", "bad_alloc")
_MOMENT = 0.1  # seconds between looks at whether an interruption is on its way
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_PARSER_PHRASES = {
    "Input should be a valid integer, unable to parse string as an integer": "must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "must be a number",
    "Input should be": "must be",
}
# What an interrupted command leaves behind; the commands that are not here only read.
_AFTER_INTERRUPT = {
    "run": "finished chains are kept; the same command resumes",
    "retrofit": "what was written is kept, and the same command goes on from it",
    "report": "a report that was written stays",
    "score": "a run is graded again whole or not at all; the same command starts again with the first one",
}


def __getattr__(name: str) -> "typer.Typer":
    """``app``, the commands, which are imported when they are asked for."""
    if name != "app":
        raise AttributeError(name)
    from hyperscale.cli.app import app

    return app


class _InterruptedError(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP. Some libraries catch KeyboardInterrupt on its way up; none knows this one."""


_received: list[int] = []  # numbers of signals


def _interrupt(number: int, _: object) -> NoReturn:
    _received.append(number)
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt_again)
        signal.setitimer(signal.ITIMER_REAL, _MOMENT, _MOMENT)
    raise _InterruptedError


def main() -> None:
    """Entry point: everything that stops a command is one line on stderr and exit code 2."""
    try:
        _take_signals()
        code = _run()
    except (_InterruptedError, KeyboardInterrupt):
        command = sys.argv[1] if len(sys.argv) > 1 else ""
        _fail(f"interrupted: {_AFTER_INTERRUPT.get(command, 'run the command again')}")
    finally:
        _release_signals()
    sys.exit(code)


def _run() -> int:
    """The exit code of the command that was asked for; ends the process where it fails."""
    from hyperscale.errors import HyperscaleError

    try:
        from hyperscale.cli.streams import flush_output, prepare_streams

        prepare_streams()
        _check_arguments(sys.argv[1:])
        _check_process()
        # Threads that spin while they wait make decoding many times slower as soon as anything else runs on the
        # machine.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from hyperscale.cli.app import app

        code = app(standalone_mode=False)
        flush_output()  # what cannot be written shows now at the latest
    except HyperscaleError as error:
        _fail(f"error: {error}")
    except BrokenPipeError:
        _fail(_BROKEN_PIPE)
    except SystemExit as stop:  # of a library: ours ends in `main`
        if stop.code in (0, None):
            return 0
        if isinstance(stop.__context__, BrokenPipeError):  # the parser of options ends so
            _fail(_BROKEN_PIPE)
        _fail(f"error: a library ended the command ({stop.code}): {_how_to_see()}")
    except MemoryError:
        _fail(_OUT_OF_MEMORY)
    except RecursionError:
        _fail(f"error: something is nested too deeply to be read: {_how_to_see()}")
    except OSError as error:
        _fail(f"error: {_describe(error)}")
    except Exception as error:
        if _received:  # a library took the interruption for a failure of its own
            raise _InterruptedError from None
        if any(phrase in str(error) for phrase in _MEMORY_PHRASES):
            _fail(_OUT_OF_MEMORY)
        if not hasattr(error, "format_message"):  # only what the parser of options raises has it
            sys.excepthook = _end_unforeseen
            raise
        message = f"{_in_our_words(error.format_message())} (see --help)"
        if sys.argv[1:2] == ["run"] and "--json" in sys.argv:
            from contextlib import suppress

            from hyperscale.cli.display.json_events import JsonObserver

            with suppress(OSError):  # the line on stderr says it too
                JsonObserver(sys.stdout).on_failure(" ".join(message.split()))
        _fail(f"error: {message}")
    # A code of 1 is the gate's verdict and nothing else; click returns what a command returns.
    return code if code in (FAILED, REGRESSION) else 0


def _take_signals() -> None:
    sys.unraisablehook = _report_dropped
    # A scheduler ends jobs with SIGTERM, a closed terminal with SIGHUP: both have to leave the folder as Ctrl-C does.
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        # Under nohup a SIGHUP is ignored, as it was asked for.
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, _interrupt)


def _interrupt_again(*_: object) -> None:
    """Raise once more what nobody raised to the end: libraries clear it, or catch everything while they are loaded."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, _InterruptedError):
            return  # on its way, through somebody's finally
        error = error.__context__
    raise _InterruptedError


def _report_dropped(dropped: Any) -> None:
    """Say what Python drops in finalisers and callbacks of weak references, but for an interruption: it comes again."""
    if not isinstance(dropped.exc_value, _InterruptedError):
        sys.__unraisablehook__(dropped)


def _release_signals() -> None:
    """While the process ends, a signal ends it at once, without a traceback of what was being closed."""
    sys.unraisablehook = sys.__unraisablehook__
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    for name in (*_SIGNALS, "SIGALRM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (_interrupt, _interrupt_again):
            signal.signal(number, signal.SIG_DFL)


def _check_arguments(arguments: list[str]) -> None:
    """Refuse what no option takes: an empty value, as of an unset variable, and names that are not UTF-8."""
    from hyperscale.errors import ConfigError

    option = "an argument"
    for argument in arguments:
        name, sign, value = argument.partition("=")
        is_option = argument.startswith("--")
        if not argument or (is_option and sign and not value):
            raise ConfigError(f"{name if is_option else option} is empty: give it a value, or leave it out")
        try:
            os.fsencode(argument).decode("utf-8")
        except UnicodeError:
            shown = os.fsencode(argument).decode("utf-8", "replace")
            raise ConfigError(f"{shown} is not UTF-8, which results are written in: rename it") from None
        option = argument if is_option else "an argument"


def _check_process() -> None:
    """Refuse a working directory that is gone, and a limit on memory under which libraries end the process."""
    from hyperscale.errors import ConfigError

    try:
        import resource
    except ImportError:
        pass
    else:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        # OpenBLAS calls exit(1), which is the gate's verdict, and others abort: no exception tells of it.
        if limit != resource.RLIM_INFINITY and limit < _LEAST_MEMORY:
            raise ConfigError(
                f"this process may take {limit / 2**20:,.0f} MiB of address space (ulimit -v), which numpy and torch "
                f"cannot be loaded in: raise the limit to {_LEAST_MEMORY >> 20:,} MiB or more"
            )
    try:
        os.getcwd()  # noqa: PTH109  # pathlib raises the same
    except OSError as error:
        raise ConfigError(f"the current folder cannot be used ({error.strerror}): change to another one") from None


def _in_our_words(message: str) -> str:
    """What the parser of options says of a value, without its validator's phrases."""
    for phrase, words in _PARSER_PHRASES.items():
        message = message.replace(phrase, words)
    return message


def _describe(error: OSError) -> str:
    """What the system says, and of which file; without one it is the output that cannot be written."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return f"cannot write the output, or read the input ({reason}): make room, or send it elsewhere"
    name = os.fsdecode(error.filename)
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    return f"cannot use {name} ({reason}): mend that, or choose another path"


def _how_to_see() -> str:
    return f"set {TRACEBACK}=1 to see where, and report it"


def _end_unforeseen(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> NoReturn:
    """What Python calls with an error that nobody caught: it would end with exit code 1, the gate's verdict."""
    from hyperscale.errors import first_line

    if os.environ.get(TRACEBACK):
        sys.__excepthook__(kind, error, trace)
    _fail(f"error: unforeseen {kind.__name__} ({first_line(error)}): {_how_to_see()}")


def _fail(message: str) -> NoReturn:
    from hyperscale.cli.streams import abandon_output, write_error

    abandon_output()
    write_error(" ".join(message.split()))
    sys.exit(FAILED)
