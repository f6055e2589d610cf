"""Where the checkout lies, for tests that read its files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
#: Data that lies beside the checkout on some machines; tests that need it skip elsewhere.
SHARED = ROOT.parent / "shared" / "data"
