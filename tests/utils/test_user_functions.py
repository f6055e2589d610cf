"""Functions that users name: what runs is what their file says now."""

import os
import sys

from hyperscale.errors import TaskError
from hyperscale.utils.user_functions import load_function


def test_a_change_within_a_second_runs(tmp_path, monkeypatch):
    """As long a text, of the same second: Python's own loader would take the code that it compiled before."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "helpers.py"
    for value in (1, 2):
        file.write_text(f"def value():\n    return {value}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert load_function("helpers:value", tmp_path, TaskError)() == value


def test_modules_of_one_name_in_two_folders_are_each_their_own(tmp_path):
    """Also those that are imported while a function is called, and those of packages."""
    functions = {}
    for word in ("Paris", "Zebra"):
        folder = tmp_path / word
        (folder / "parts").mkdir(parents=True)
        for name in ("wordlist", "later", "parts/__init__", "parts/inner"):
            (folder / f"{name}.py").write_text(f"WORD = {word!r}\n")
        (folder / "grade.py").write_text(
            "import wordlist\nfrom parts import inner\n\n"
            "def words():\n    import later, wordlist as again\n"
            "    assert again is wordlist\n    return [wordlist.WORD, inner.WORD, later.WORD]\n"
        )
        functions[word] = load_function("grade:words", folder, TaskError)
    for word in ("Paris", "Zebra", "Paris"):
        assert functions[word]() == [word] * 3
    assert not {"wordlist", "parts", "parts.inner", "later", "hyperscale_user.grade"} & set(sys.modules)
    assert not {str(tmp_path / word) for word in functions} & set(sys.path)


def test_a_package_of_an_environment_in_the_folder_stays(tmp_path, monkeypatch):
    """Some packages cannot be imported twice."""
    packages = tmp_path / ".venv" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed_there.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    (tmp_path / "grade.py").write_text("import installed_there\n\ndef grade():\n    return installed_there\n")
    module = load_function("grade:grade", tmp_path, TaskError)()
    try:
        assert sys.modules["installed_there"] is module
    finally:
        sys.modules.pop("installed_there", None)


def test_a_dataclass_with_annotations_that_are_texts(tmp_path):
    (tmp_path / "grade.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n\n"
        "@dataclass\nclass Answer:\n    text: str\n    kind: ClassVar[str] = 'x'\n\n"
        "def grade():\n    return Answer('a').text\n"
    )
    assert load_function("grade:grade", tmp_path, TaskError)() == "a"
