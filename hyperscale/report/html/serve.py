"""Serves a report to a browser: ``hyperscale report --serve``, for runs on a machine without a screen.

One page, the texts that lie beside it, and nothing else of the folder. On a loopback address only requests that name
this machine are answered: a page of another site, open in the same browser, could otherwise have its own name point
here and read the report.
"""

import ipaddress
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import unquote, urlsplit

from hyperscale.errors import ConfigError
from hyperscale.report.html.text_folder import TEXT_FILE, TextFolder

HOST, PORT = "127.0.0.1", 8000
_NAMES = ("localhost", "127.0.0.1", "::1")  # of this machine, for itself


class ReportServer(ThreadingHTTPServer):
    """Serves a page until it is closed.

    Args:
        path: The HTML file; it is read at every request, so a newer report shows on reload.
        host: Address to listen at; a loopback address for this machine alone.
        port: Port; 0 for a free one.

    Raises:
        ConfigError: Nothing can listen there.
    """

    daemon_threads = True

    def __init__(self, path: Path, host: str = HOST, port: int = PORT) -> None:
        self.page = path
        self.is_local = is_loopback(host)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ConfigError(
                f"cannot listen at {host} port {port} ({reason}): choose another --port, or an address of this machine "
                "with --host"
            ) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which may take long where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    """Answers requests for the page, and refuses all others."""

    server: ReportServer
    server_version = sys_version = ""

    def do_GET(self) -> None:
        """Send the page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send the page's headers."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: requests are no news."""

    def _answer(self, *, with_body: bool) -> None:
        if self.server.is_local and not _names_this_machine(self.headers.get("Host")):
            self.send_error(HTTPStatus.FORBIDDEN, "this address is for this machine alone")
            return
        path, kind = self._find()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            body = path.read_bytes()
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND, "the report is gone: write it again")
            return
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),  # or another site's page could run a file of texts
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _find(self) -> tuple[Path | None, str]:
        """The file that is asked for, the page or one of its texts, and its type; None for any other."""
        place, page = unquote(urlsplit(self.path).path), self.server.page
        if place in ("/", f"/{page.name}"):
            return page, "text/html"
        texts = TextFolder(page).path
        name = place.removeprefix(f"/{texts.name}/")
        is_text = name != place and TEXT_FILE.fullmatch(name) is not None
        return (texts / name if is_text else None), "text/javascript"


def is_loopback(host: str) -> bool:
    """Whether an address reaches no other machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names_this_machine(host: str | None) -> bool:
    """Whether a request's Host is a name of this machine for itself, with any port: a tunnel may have another."""
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:  # a bracket that nothing closes
        return False
    return name in _NAMES or is_loopback(name)
