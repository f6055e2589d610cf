"""The faces of the packages: a purpose each, public names that exist, are typed and cost nothing to import."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from repository import ROOT

PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in (ROOT / "hyperscale").rglob("__init__.py")
    if "child" not in path.parts  # which runs in sandboxes, without hyperscale
)
HEAVY = ("torch", "transformers", "pandas", "numpy", "matplotlib", "datasets", "vllm", "ray", "lm_eval", "pyarrow")
#: Packages that are not in every environment where tests run.
OPTIONAL = ("vllm", "kvpress", "triton")
#: Packages that can be called in place of a function of their name, by the package that they are in.
CALLABLE = {"hyperscale": {"run"}}
#: Not a list of alternatives, so not longer than what a reader takes in at a glance.
MOST_MODULES = 15
#: Folders whose modules are alternatives to each other, one a method, a command or a rule.
ALTERNATIVES = ("hyperscale/methods", "hyperscale/cli/commands", "tests/helpers/references/reference_rules")


def face(package):
    """Names that a package offers to type checkers (``import x as x``), by the module that defines them."""
    tree = ast.parse(Path(import_module(package).__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in imports for alias in node.names if alias.asname}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_for_and_offers_what_it_declares(package):
    module = import_module(package)
    assert module.__doc__
    declared = face(package)
    if package != "hyperscale":
        assert sorted(getattr(module, "__all__", [])) == sorted(declared)
    submodules = {path.stem for path in Path(module.__file__).parent.iterdir()}
    shared = submodules & set(declared)
    assert shared <= CALLABLE.get(package, set()), "a name that is a submodule's too depends on what was imported first"
    for name in shared:  # the package stands for the function, and takes the same
        function = getattr(import_module(declared.pop(name)), name)
        ours, theirs = (inspect.signature(each).parameters.values() for each in (getattr(module, name), function))
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]
    for name, origin in declared.items():
        try:
            assert getattr(module, name) is getattr(import_module(origin), name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            pytest.skip(f"needs {error.name}")


#: It is imported to tell lm-eval of a model, so it imports lm-eval's list of them, and nothing else.
REGISTERS = "hyperscale.lm_eval"


@pytest.mark.parametrize(
    ("packages", "heavy"), [([name for name in PACKAGES if name != REGISTERS], []), ([REGISTERS], ["lm_eval"])]
)
def test_no_face_imports_anything_heavy(packages, heavy):
    program = f"import sys, {', '.join(packages)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == str(heavy)


def modules(folder):
    return [path for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]


def test_a_folder_can_be_taken_in_at_a_glance():
    folders = {path.parent for top in ("hyperscale", "tests") for path in (ROOT / top).rglob("*.py")}
    wide = {str(each.relative_to(ROOT)) for each in folders if len(modules(each)) > MOST_MODULES}
    assert not wide - set(ALTERNATIVES)
    assert len(list((ROOT / "hyperscale").glob("*.py"))) <= 6
