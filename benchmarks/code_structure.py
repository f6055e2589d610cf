"""Measures the code's structure: wide folders, circles, upward imports, comments, names that say little.

    python benchmarks/code_structure.py                 # this checkout
    python benchmarks/code_structure.py OTHER/CHECKOUT  # another one, by the same rules
    python benchmarks/code_structure.py --names hyperscale/kv    # every name that says little, with its place

Circles are strongly connected groups among the modules and packages of one folder, imports inside functions and for
types included. Upward imports need the order of the packages, which is read from the ``layers`` contract in
pyproject.toml; a checkout without one has none to break. Needs grimp, which comes with import-linter.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

#: Verbs' forms and pronouns that stand where a noun of the field should.
_WORDS = frozenset(
    [
        "found",
        "made",
        "asked",
        "kept",
        "wanted",
        "given",
        "taken",
        "done",
        "seen",
        "known",
        "told",
        "left",
        "shown",
        "held",
        "drawn",
        "chosen",
        "written",
        "sent",
        "gone",
        "born",
        "said",
        "cut",
        "put",
        "read_",
        "run_",
        "each",
        "both",
        "those",
        "these",
        "others",
        "ours",
        "mine",
        "theirs",
        "some",
        "rest",
        "more",
        "less",
        "most",
        "here",
        "there",
        "one",
        "ones",
        "another",
        "several",
        "what",
        "which",
        "who",
        "whose",
    ]
)
_NOUNS = frozenset(
    ["seed", "speed", "need", "feed", "embed", "bed", "thread", "spread", "head", "read", "padded_length"]
)


def sources(root: Path) -> list[Path]:
    """The package's Python files."""
    return sorted(path for path in (root / "hyperscale").rglob("*.py") if "_data" not in path.parts)


def assigned(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable that is assigned, looped over or bound by ``with``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def says_little(name: str) -> bool:
    """Whether a name is a participle or a pronoun."""
    return name in _WORDS or (re.fullmatch(r"[a-z]+ed", name) is not None and name not in _NOUNS)


def comment_lines(text: str) -> int:
    """Lines that hold a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def widest(root: Path, folder: str, most: int) -> list[tuple[int, str]]:
    """The folders with the most Python files, ``__init__`` not counted."""
    counts = Counter(
        str(path.parent.relative_to(root))
        for path in (root / folder).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    )
    return [(count, name) for name, count in counts.most_common(most)]


def circles(root: Path) -> tuple[int, int]:
    """Circular groups among siblings at any depth, and the modules in them."""
    import grimp

    sys.path.insert(0, str(root))
    graph = grimp.build_graph("hyperscale", cache_dir=None)
    parents = {"hyperscale"} | {module for module in graph.modules if graph.find_children(module)}
    groups = []
    for parent in parents:
        children = graph.find_children(parent)
        edges: dict[str, set[str]] = {child: set() for child in children}
        for module in graph.modules:
            for imported in graph.find_modules_directly_imported_by(module):
                ends = [
                    next((c for c in children if m == c or m.startswith(c + ".")), None) for m in (module, imported)
                ]
                if ends[0] and ends[1] and ends[0] != ends[1]:
                    edges[ends[0]].add(ends[1])
        groups += [group for group in _components(edges) if len(group) > 1]
    return len(groups), sum(map(len, groups))


def _components(edges: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components, by reachability: the graphs are small."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            node = stack.pop()
            for following in edges[node] - seen:
                seen.add(following)
                stack.append(following)
        return seen

    reachable = {node: reach(node) for node in edges}
    components = {frozenset({node} | {m for m in reachable[node] if node in reachable[m]}) for node in edges}
    return [set(component) for component in components]


def upward(root: Path) -> int | None:
    """Imports against the order of the layers contract; None without such a contract."""
    import grimp

    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"].get("importlinter", {})
    layers = next((c["layers"] for c in settings.get("contracts", ()) if c["type"] == "layers"), None)
    if layers is None:
        return None
    graph = grimp.build_graph("hyperscale", cache_dir=None)
    place = {layer: i for i, layer in enumerate(layers)}
    count = 0
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = [place.get(m.partition(".")[2].partition(".")[0]) for m in (module, imported)]
            count += None not in pair and pair[0] > pair[1]
    return count


def main() -> None:
    """Print the table, or the names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--names", metavar="FOLDER", help="list the names that say little in a folder or file")
    arguments = parser.parse_args()
    if arguments.names:
        place = Path(arguments.names)
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            for line, name in sorted(assigned(ast.parse(path.read_text(encoding="utf-8")))):
                if says_little(name):
                    print(f"{path}:{line}: {name}")
        return
    root = arguments.root.resolve()
    files = sources(root)
    texts = [path.read_text(encoding="utf-8") for path in files]
    names = [name for text in texts for _, name in assigned(ast.parse(text))]
    lines = [len(text.splitlines()) for text in texts]
    little = sum(map(says_little, names))
    groups, members = circles(root)
    comments = sum(map(comment_lines, texts))
    print(f"files {len(files)}, lines {sum(lines):,}; median {median(lines):.0f}, longest {max(lines)}")
    for folder in ("hyperscale", "tests"):
        print(f"widest in {folder}: " + ", ".join(f"{name} {count}" for count, name in widest(root, folder, 5)))
    print(f"circles {groups} ({members} modules)")
    print(f"upward imports {'no order stated' if (count := upward(root)) is None else count}")
    print(f"lines with a comment {comments:,} ({100 * comments / sum(lines):.1f} %)")
    print(f"assignments to participles and pronouns {little} of {len(names):,} ({100 * little / len(names):.1f} %)")


if __name__ == "__main__":
    main()
