"""Keeps a page's texts in a folder beside it, one file a problem, which the page loads when somebody opens it.

A page that is opened from a disk may load scripts but read no files, so each file is a script that hands its block of
texts to the page. A file's name holds a hash of its contents: a page never shows the texts of another one.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from hyperscale.report.html.text_packing import compress
from hyperscale.utils.files import write_atomic

TEXT_FILE = re.compile(r"[0-9]+-[0-9a-f]{16}\.js")


class TextFolder:
    """The folder of a page's texts.

    Attributes:
        path: The folder, which need not be there.
        files: Names of the page's files, without their endings, in the order of the groups.
        size: Their bytes.
    """

    def __init__(self, page: Path) -> None:
        """The folder of the page that is written to this file."""
        self.path = page.with_name(f"{page.stem}.texts")
        self.files: list[str] = []
        self.size = 0

    def write(self, groups: Iterable[Sequence[str]]) -> None:
        """Write a file for each group of texts that are read together.

        Raises:
            OSError: The folder cannot be made, or a file not be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for i, group in enumerate(groups):
            block = compress(list(group))
            name = f"{i}-{hashlib.sha256(block.encode('ascii')).hexdigest()[:16]}"
            script = f'hyperscaleTexts("{name}","{block}")\n'  # base64: nothing that a model wrote becomes a script
            path = self.path / f"{name}.js"
            if not (path.is_file() and path.stat().st_size == len(script)):
                write_atomic(path, script)
            self.files.append(name)
            self.size += len(script)

    def remove_others(self) -> None:
        """Remove the files that older pages had, and the folder if nothing is left in it."""
        if not self.path.is_dir():
            return
        kept = {f"{name}.js" for name in self.files}
        for path in self.path.iterdir():
            if TEXT_FILE.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
