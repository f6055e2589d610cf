"""The pages for people: every file, name, option and link in them exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer
from repository import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "results/*.md", "results/*/*.md", "hyperscale/mini/weights/*.md")
    for path in ROOT.glob(pattern)
)
# Code blocks are between fences; a span is between single back-ticks.
FENCED = re.compile(r"^ *```.*?^ *```[^\n]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"(?:[\w.-]+/)*[\w.-]+\.(?:py|md|yaml|yml|toml|txt|csv|png)\b(?!/)")
FOLDER = re.compile(r"(?:hyperscale|tests|benchmarks|tasks|budgets|docs|examples)(?:/[\w.-]+)*/")
SOURCES = (
    "hyperscale",
    "tests",
    "benchmarks",
    "tasks",
    "budgets",
    "docs",
    "examples",
    ".github",
    ".ci",
    "results/reference",
)
OURS = re.compile(r"hyperscale(?:\.\w+)+")
CLASS = re.compile(r"_?[A-Z][a-z]\w*(?:\.\w+)?")
CALL = re.compile(r"(\w+)\(\)")
# What a run or a user writes, and files and classes of other projects.
WRITTEN = {"points.csv", "margins.csv", "accuracy.csv", "accuracy.png", "run.yaml", "ERRATA.md", "testing_util.py"}
WRITTEN |= {"training.png", "likelihood.csv", "likelihood.png", "buckets.csv", "positions.csv", "documents.csv"}
PLACEHOLDER = re.compile(r"\b(NAME|AXIS|PACKAGE|PATH)\b|^results/first/")
OTHERS = {"Scheduler.update_from_output", "Worker.determine_available_memory", "BlockPool", "Triton"}
PROSE_WIDTH = 120


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def source_files() -> frozenset[str]:
    folders = [path for source in SOURCES for path in (ROOT / source).rglob("*") if "__pycache__" not in path.parts]
    return frozenset(path.relative_to(ROOT).as_posix() for path in [*ROOT.iterdir(), *folders] if path.is_file())


@cache
def module_body(module: str) -> list[ast.stmt] | None:
    """The statements of a module or package; None if there is none of that name."""
    path = ROOT / module.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return ast.parse(file.read_text(encoding="utf-8")).body
    return [] if path.is_dir() and module.count(".") else None


def defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The names that statements bind, with the statement."""
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name): node for alias in node.names}
        elif isinstance(node, ast.If):
            names |= defined(node.body)
    return names


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, a name in one, or a member of a class in one."""
    module, names = dotted, []
    while (body := module_body(module)) is None:
        module, _, name = module.rpartition(".")
        names.insert(0, name)
    for name in names:
        node = defined(body).get(name)
        if node is None:
            return False
        body = node.body if isinstance(node, ast.ClassDef) else []
    return True


@cache
def definitions() -> dict[str, set[str]]:
    """Every class of the package with its members (those of its instances too), and every function."""
    members: dict[str, set[str]] = {}
    for path in (ROOT / "hyperscale").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                own = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
                members.setdefault(node.name, set()).update(defined(node.body), own)
            elif isinstance(node, ast.FunctionDef):
                members.setdefault(node.name, set())
    return members


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", LINK.sub("", heading).lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    broken = []
    for target in LINK.findall(FENCED.sub("", read(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        resolves = path.exists()
        if resolves and anchor:
            resolves = anchor in anchors(path.resolve().relative_to(ROOT).as_posix())
        if not resolves:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_files_and_folders_exist(page):
    """A file is named from the root, or by as much of its path's end as tells which it is."""
    known = source_files() | set(PAGES)
    missing = {
        name
        for name in FILE.findall(read(page))
        if Path(name).name not in WRITTEN
        and not PLACEHOLDER.search(name)
        and not any(path == name or path.endswith("/" + name.removeprefix("../")) for path in known)
        and not ((ROOT / page).parent / name).exists()
    }
    folders = {name for name in SPAN.findall(read(page)) if FOLDER.fullmatch(name) and not PLACEHOLDER.search(name)}
    missing |= {name for name in folders if not (ROOT / name).is_dir()}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page):
    text = read(page)
    assert [name for name in OURS.findall(text) if not name.endswith(".py") and not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_names_stand_in_their_files(page):
    """Of `file.py`, `name` and `name` (`file.py`) the file has the name."""
    text = FENCED.sub("", read(page))
    pairs = re.findall(r"`([\w./]+\.py)`(?:,|, and)\s+`([\w.]+)`", text)
    pairs += [(file, name) for name, file in re.findall(r"`([\w.]+)`\s+\(`([\w./]+\.py)`", text)]
    wrong = []
    for file, name in pairs:
        files = [path for path in source_files() if path == file or path.endswith("/" + file)]
        word = re.compile(rf"\b{re.escape(name.rpartition('.')[2])}\b")
        if not FILE.fullmatch(name) and not any(
            word.search((ROOT / path).read_text(encoding="utf-8")) for path in files
        ):
            wrong.append(f"{name} in {file}")
    assert wrong == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_classes_and_functions_exist(page):
    known, unknown = definitions(), []
    for span in SPAN.findall(FENCED.sub("", read(page))):
        if CLASS.fullmatch(span) and span not in OTHERS:
            name, _, member = span.partition(".")
            if name not in known or (member and member not in known[name]):
                unknown.append(span)
        elif (call := CALL.fullmatch(span)) and call[1] not in known:
            unknown.append(span)
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page):
    from hyperscale.cli.main import app

    group = typer.main.get_command(app)
    wrong = []
    for block in FENCED.findall(read(page)):
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|&& |; )hyperscale ([^#&;|]+)", line.strip()):
                name, *words = call.split()
                command = group.commands.get(name)
                if command is None:
                    wrong.append(call) if not name.startswith("-") else None
                    continue
                options = {
                    option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
                }
                wrong += [f"{name} {word}" for word in words if word.startswith("--") and word not in options]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_are_short(page):
    prose = FENCED.sub("", read(page)).splitlines()
    assert [line for line in prose if len(line) > PROSE_WIDTH and not line.lstrip().startswith(("|", "!["))] == []


def test_the_matrix_says_what_the_tests_compare(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import equality_matrix

    page = read("results/measurements/equality.md")
    _, _, explained = page.partition(equality_matrix.END)
    same = page == equality_matrix.written(page)
    assert same, "results/measurements/equality.md is out of date; write it anew: python benchmarks/equality_matrix.py"
    words = {each.word.rstrip("*") for column in equality_matrix.COLUMNS.values() for each in column}
    assert {word for word in words if f"\n| {word} |" not in explained} == set()
