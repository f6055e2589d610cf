"""Writes the report: one HTML file of a run or several, which opens without a network and shows its chains.

Frontiers, margins and points are computed here, with the functions that plots and tables use; the page only shows them.
Chains are packed so that a large run makes a bounded file, which states what it leaves out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hyperscale import results
from hyperscale.errors import ResultsError
from hyperscale.planning.plan_file import common_ceilings
from hyperscale.planning.run_state import unfinished_notes
from hyperscale.report.html import chains, failures, frontiers, heads, page, questions
from hyperscale.report.html.command import write_command
from hyperscale.report.html.text_folder import TextFolder
from hyperscale.results.folder import Run
from hyperscale.utils.files import write_atomic

FILE = "report.html"
TEXT_MIB = 16.0  # room for the chains' texts in the file


def write_report(
    folder: Path | str,
    out: Path | str | None = None,
    text_mib: float = TEXT_MIB,
    step: Callable[[str], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    one_file: bool = False,
) -> Path:
    """Write the report of a run folder, or of every run directly inside a folder.

    Args:
        folder: A run's folder, or one that holds runs.
        out: The HTML file; ``report.html`` in the folder if None.
        text_mib: Room for the chains' texts in MiB of the file. If they need more, they are written into a folder
            beside it (`text_folder.TextFolder`).
        step: Called with what is being done.
        note: Called with what was left out of the chains, and where texts are.
        one_file: Shorten long texts until all fit into the file, and write no folder.

    Returns:
        The file written.

    Raises:
        ResultsError: No run, no chains, a corrupt file, or the file cannot be written.
        TaskError: A task is unknown, so that its votes cannot be counted.
    """
    folder = Path(folder)
    step(f"reading {folder}")
    runs = results.read(folder)
    if not any(run.samples for run in runs):
        raise ResultsError(f"{folder} holds no finished chain yet: nothing to report")
    for run in runs:
        for text in run.notes:
            note(text)
    path = Path(out) if out is not None else folder / FILE
    if path.is_dir():
        raise ResultsError(f"{path} is a folder: pass a file to write, e.g. --out {path / FILE}")
    texts = TextFolder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = render_report(runs, folder.resolve().name, text_mib, step, None if one_file else texts)
        step(f"writing {path}")
        write_atomic(path, text)
        texts.remove_others()
    except OSError as error:
        raise ResultsError(f"cannot write {path} ({error.strerror}): choose another file with --out") from None
    if texts.files:
        size = texts.size / 2**20
        note(f"the texts are in {texts.path} ({size:.1f} MiB): keep that folder beside the file, or pass --one-file")
    return path


def render_report(
    runs: Sequence[Run],
    name: str,
    text_mib: float = TEXT_MIB,
    step: Callable[[str], None] = lambda _: None,
    texts: TextFolder | None = None,
) -> str:
    """The page of some runs; the same runs always give the same page.

    Args:
        runs: Runs with at least one chain among them.
        name: Of all of them together, in the page's head.
        text_mib: As for `write_report`.
        step: As for `write_report`.
        texts: Where texts are written that do not fit; None to shorten them.

    Raises:
        TaskError: A task is unknown.
        OSError: Texts cannot be written.
    """
    # An order that no interruption of a run changes.
    runs = [replace(run, samples=sorted(run.samples, key=lambda sample: sample.key)) for run in runs]
    step("computing frontiers and margins")
    points = [point for run in runs for point in run.points()]
    budget = common_ceilings(run.folder for run in runs)
    about = {"name": name, "runs": [_about(run) for run in runs], "unfinished": unfinished_notes(runs)}
    data = about | frontiers.collect_numbers(points, budget) | {"kept": heads.collect_heads(runs)}
    means = [
        mean for run in runs for mean in run.group_means(point for point in points if point.series.run == run.name)
    ]
    data["answers"] += frontiers.describe_group_means(means)
    asked = questions.find_questions(runs)
    step("asking why programs are wrong")
    explanation = failures.explain_failures(runs, asked)
    step("packing chains")
    ordered = [points[i] for i in frontiers.page_order(points)]
    room = int(text_mib * 2**20)
    index, blocks = chains.collect_chains(runs, asked, room, ordered, explanation, texts)
    return page.assemble_page(data, index, blocks)


def _about(run: Run) -> dict[str, object]:
    """How a run was made: main settings, versions, hardware; paths of the machine it ran on stay out."""
    config = run.info["config"]
    settings = (
        "model",
        "methods",
        "budget",
        "crs",
        "tasks",
        "limit",
        "seeds",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "device",
        "dtype",
    )
    about = {
        "name": run.name,
        "chains": len(run.samples),
        "command": write_command(run.info),
        "config": {name: config[name] for name in settings if config.get(name) is not None},
        "versions": run.info.get("versions") or {},
        "hardware": run.info.get("hardware") or {},
    }
    return frontiers.plain(about)  # type: ignore[no-any-return]
