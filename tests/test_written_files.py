"""Every file that the tool writes is written whole: no code writes directly, and a kill leaves no half."""

import ast
import os
import signal
from pathlib import Path

import pytest
from repository import ROOT
from synthetic_samples import chains, points

from hyperscale.analysis.curves import analyse
from hyperscale.report.plots.write import FORMATS, draw_analysis

# Where files are opened for writing: the helper itself, the appended samples and the lock, and what programs of a model
# find in their own temporary folders.
ALLOWED = {"hyperscale/utils/files.py", "hyperscale/results/store.py"}
SANDBOX = "hyperscale/scoring/sandbox/"
METHODS = {"write_text", "write_bytes", "savefig", "tofile", "to_file", "touch"}
TABLES = {"to_csv", "to_json", "to_parquet", "to_html", "to_excel", "to_pickle"}
FUNCTIONS = {("json", "dump"), ("yaml", "dump"), ("pickle", "dump"), ("torch", "save"), ("np", "save"), ("np", "savez")}
FUNCTIONS |= {("shutil", name) for name in ("copy", "copy2", "copyfile", "copytree", "move")}
# Libraries that write a whole folder: only into the one that `write_folder` gives.
INTO_FOLDERS = {"save_pretrained", "save_file"}
FOLDER_WRITERS = {
    "hyperscale/retrofit/checkpoints.py",
    "hyperscale/retrofit/run_training.py",
    "hyperscale/mini/vocab.py",
}

FILE_WRITERS = {"hyperscale/retrofit/resume/state_file.py": {"save"}}


#: Calls that write into memory, by the name of what they are given; the helper then writes the bytes.
IN_MEMORY = {("savefig", "image"), ("savez", "buffer")}


def direct_writes(path):
    """The calls of a module that write a file without the helper, as (line, name)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        constants = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
        opens = name in ("open", "fdopen") and any(
            isinstance(value, str) and len(value) <= 3 and set(value) & set("wax+") for value in constants
        )
        table = name in TABLES and bool(node.args)  # without a path they give a text
        target = node.args[0].id if node.args and isinstance(node.args[0], ast.Name) else ""
        is_memory = (name, target) in IN_MEMORY
        # Without a file it gives a text.
        text = (
            (owner, name) == ("yaml", "dump") and len(node.args) == 1 and "stream" not in {k.arg for k in node.keywords}
        )
        wanted = name in METHODS | INTO_FOLDERS and not is_memory
        if opens or table or wanted or ((owner, name) in FUNCTIONS and not (text or is_memory)):
            yield node.lineno, name


def test_no_code_writes_a_file_but_the_helper():
    found = {}
    for path in (ROOT / "hyperscale").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if name in ALLOWED or name.startswith(SANDBOX):
            continue
        # `write_file` gives it a name beside the file, as `write_folder` does.
        wanted = FILE_WRITERS.get(name, set())
        calls = [call for call in direct_writes(path) if not (name in FOLDER_WRITERS and call[1] in INTO_FOLDERS)]
        calls = [call for call in calls if call[1] not in wanted]
        if calls:
            found[name] = calls
    assert not found


def test_the_search_for_direct_writes_finds_them(tmp_path):
    lines = [
        *("path.write_text('x')", "path.open('w')", "open(path, mode='ab')", "table.to_csv(path)", "json.dump(x, f)"),
        *(
            "yaml.dump(x, f)",
            "yaml.dump(x, stream=f)",
            "picture.savefig(path)",
            "torch.save(model, path)",
            "shutil.copy(a, b)",
            "model.save_pretrained(folder)",
        ),
    ]
    (tmp_path / "module.py").write_text(
        "\n".join([*lines, "yaml.dump(x)", "table.to_csv()", "open(path)", "path.open('rb')"])
    )
    assert [line for line, _ in direct_writes(tmp_path / "module.py")] == list(range(1, len(lines) + 1))


def killed_at(count, act):
    """Run a function in a process that is killed at its n-th write, sync or rename, after half of a write.

    Gives the exit status: negative for the signal, 0 if there were fewer.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = count
    write, sync, replace = os.write, os.fsync, Path.replace

    def strike(half=lambda: None):
        nonlocal left
        left -= 1
        if not left:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def writes(descriptor, data):
        strike(lambda: write(descriptor, data[: len(data) // 2]))
        return write(descriptor, data)

    def syncs(descriptor):
        strike()
        sync(descriptor)

    def renames(path, target):
        strike()
        return replace(path, target)

    os.write, os.fsync, Path.replace = writes, syncs, renames
    try:
        act()
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.fixture(scope="module")
def analyses():
    """Two analyses whose files differ."""
    vanilla, dms = chains("vanilla", 1, problems=12, width=2), chains("dms", 8, problems=12, width=2)
    return [analyse(points(found), ["kv_reads"], n_boot=100) for found in (vanilla, vanilla + dms)]


def test_a_kill_leaves_every_picture_old_or_new(analyses, tmp_path):
    whole = []
    for number, analysis in enumerate(analyses):
        draw_analysis(analysis, tmp_path / str(number), formats=FORMATS)
        whole.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
    old, new = whole
    out, statuses = tmp_path / "0", []
    for count in (1, 2, 3, 6, 9, 13, 18, 100):
        statuses.append(killed_at(count, lambda: draw_analysis(analyses[1], out, formats=FORMATS)))
        for path in out.iterdir():
            if not path.name.startswith("."):
                assert path.read_bytes() in (old.get(path.name), new[path.name]), path
    assert statuses == [-signal.SIGKILL] * 7 + [0]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == new, "the next one clears up"
