"""Puts the page together: style, script and data in one file, and a policy that lets a browser load nothing else."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from hyperscale.report.html.text_packing import compress

SCRIPTS = (
    *("base.js", "address.js", "chosen.js", "readout.js", "panel.js", "frontiers.js", "retained.js", "tables.js"),
    *("heads.js", "chain.js", "compare.js", "chains.js", "main.js"),
)


def assemble_page(data: dict[str, Any], index: dict[str, Any], texts: Sequence[str]) -> str:
    """Put the page together.

    Nothing of the data becomes markup: numbers and names are JSON without ``<``, chains are base64, and the script
    writes both into the page as text. The content security policy names the hashes of the one style and the one script,
    so that a browser would refuse anything else, inline or from elsewhere.

    Args:
        data: Numbers (`hyperscale.report.html.frontiers`) and descriptions of the runs.
        index: Problems and chains (`hyperscale.report.html.chains`).
        texts: Blocks of texts.
    """
    style = _read("page.css")
    # Where texts lie beside the page, its script, and nothing else, may load them.
    loading = " 'strict-dynamic'" if index["beside"] else ""
    script = '"use strict";\n(() => {\n' + "\n".join(_read(name) for name in SCRIPTS) + "})();\n"
    hashes = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'{loading}"
    policy = f"default-src 'none'; {hashes}; base-uri 'none'; form-action 'none'"
    blocks = [_block("data", _safe_json(data), "application/json"), _block("index", compress(index))]
    blocks += [_block(f"texts-{i}", text) for i, text in enumerate(texts)]
    parts = {"policy": policy, "style": style, "script": script, "blocks": "\n".join(blocks)}
    # Every odd piece of the template is a name. One pass, so that a part which holds another's name is left alone.
    pieces = _read("page.html").split("%%")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _safe_json(value: Any) -> str:
    """JSON in ASCII that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _block(name: str, text: str, kind: str = "text/plain") -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _read(name: str) -> str:
    return (files("hyperscale.report.html") / "web" / name).read_text(encoding="utf-8")
