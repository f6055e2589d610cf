"""A report's page taken apart, and runs that one is made of."""

import base64
import json
import zlib
from html.parser import HTMLParser

from synthetic_samples import write_samples


def unpacked(block):
    return json.loads(zlib.decompress(base64.b64decode(block)))


class Page(HTMLParser):
    """A page's elements with their attributes, and the contents of its scripts by id."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.blocks, self._inside = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._inside = attributes.get("id", "program") if tag == "script" else None

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, text):
        if self._inside:
            self.blocks[self._inside] = self.blocks.get(self._inside, "") + text

    @property
    def data(self):
        return json.loads(self.blocks["data"])

    @property
    def index(self):
        return unpacked(self.blocks["index"])


def write_run(folder, samples, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"schema": 2, "config": {"model": "mini", **config}}))
    write_samples(folder / "samples.jsonl", samples)
    return folder
