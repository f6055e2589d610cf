"""Write what `hyperscale methods` prints into docs/methods.md.

Usage: python benchmarks/method_list.py
"""

import subprocess
import sys
from pathlib import Path

DOC = Path(__file__).parent.parent / "docs" / "methods.md"
START, END = "<!-- methods -->\n```text\n", "```\n<!-- /methods -->"


def main() -> None:
    """Replace what lies between the marks."""
    command = [sys.executable, "-m", "hyperscale.cli", "methods"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    before, rest = DOC.read_text(encoding="utf-8").split(START)
    DOC.write_text(f"{before}{START}{listed}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
