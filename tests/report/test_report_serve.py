"""``hyperscale report --serve``: one page, for this machine alone unless it was asked otherwise."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from commandline import caller, fails
from run_folders import write_run
from synthetic_samples import chains

from hyperscale.errors import ConfigError
from hyperscale.report.html.serve import ReportServer
from hyperscale.report.html.text_folder import TextFolder

PAGE = "<!doctype html><title>ζ</title>"


@pytest.fixture
def serve(tmp_path):
    """A function that starts a server of a page and gives (server, function that asks it)."""
    (tmp_path / "report.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "samples.jsonl").write_text("secret")
    servers = []

    def start(host="127.0.0.1"):
        server = ReportServer(tmp_path / "report.html", host, 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)

        def ask(path="/", method="GET", **headers):
            connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers

        return server, ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_page_and_nothing_else_is_served(serve, tmp_path):
    server, ask = serve()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
    for path in ("/", "/report.html", "/?q=1#problem"):
        status, body, headers = ask(path)
        assert (status, body) == (200, PAGE)
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
    status, body, headers = ask(method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, "", str(len(PAGE.encode())))
    for path in ("/samples.jsonl", "/../samples.jsonl", "/%2e%2e/samples.jsonl", "//etc/passwd", "/report.html/x"):
        status, body, _ = ask(path)
        assert status == 404
        assert "secret" not in body
    assert ask(method="POST")[0] == 501
    (tmp_path / "report.html").write_text("newer")
    assert ask()[1] == "newer"
    (tmp_path / "report.html").unlink()
    assert ask()[0] == 404


def test_texts_beside_the_page_are_served_and_no_other_file_there(serve, tmp_path):
    _, ask = serve()
    folder = TextFolder(tmp_path / "report.html")
    folder.write([["one"], ["two"]])
    (folder.path / "other.js").write_text("secret")
    for name in folder.files:
        status, body, headers = ask(f"/report.texts/{name}.js")
        assert (status, body) == (200, (folder.path / f"{name}.js").read_text())
        assert headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    missing = f"{folder.files[0][:-1]}{'0' if folder.files[0][-1] != '0' else '1'}.js"
    for name in ("other.js", "", missing, "../samples.jsonl", "%2e%2e/samples.jsonl", f"../{missing}"):
        status, body, _ = ask(f"/report.texts/{name}")
        assert status == 404
        assert "secret" not in body


def test_requests_that_name_another_machine_are_refused_on_loopback(serve):
    _, ask = serve()
    for host in ("localhost", "localhost:8000", "127.0.0.1:9", "[::1]:80", "127.1.2.3"):
        assert ask(Host=host)[0] == 200
    for host in (
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil",
        "[",
        "10.0.0.7",
    ):
        status, body, _ = ask(Host=host)
        assert status == 403, host
        assert PAGE not in body


def test_other_addresses_answer_whoever_asks(serve):
    server, ask = serve("0.0.0.0")
    assert not server.is_local
    assert ask(Host="gpu-box:8000")[:2] == (200, PAGE)


def test_ports_and_addresses_that_cannot_be_had(serve, tmp_path):
    server, _ = serve()
    with pytest.raises(ConfigError, match=r"cannot listen at 127\.0\.0\.1 port \d+ \(Address already in use\): choose"):
        ReportServer(tmp_path / "report.html", "127.0.0.1", server.server_address[1])
    with pytest.raises(ConfigError, match=r"cannot listen at 203\.0\.113\.9"):
        ReportServer(tmp_path / "report.html", "203.0.113.9", 0)


def test_a_port_in_use_is_said_before_the_report_is_made(serve, monkeypatch, capsys, tmp_path):
    server, _ = serve()
    write_run(tmp_path / "run", chains("vanilla", 1, problems=3, width=2))
    call = caller(monkeypatch, capsys, tmp_path)
    fails(call("report", tmp_path / "run", "--serve", "--port", server.server_address[1]), "Address already in use")
    assert not (tmp_path / "run" / "report.html").exists()


def test_options_of_serving_go_with_it(monkeypatch, capsys, tmp_path):
    call = caller(monkeypatch, capsys, tmp_path)
    fails(call("report", tmp_path, "--port", 80), "--port and --host go with --serve")
    fails(call("report", tmp_path, "--host", "0.0.0.0"), "--port and --host go with --serve")


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    write_run(tmp_path / "run", chains("vanilla", 1, problems=3, width=2))
    command = [sys.executable, "-m", "hyperscale.cli", "report", "run", "--serve", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        found = None
        for line in process.stdout:
            if found := re.search(r"serving it at http://127\.0\.0\.1:(\d+)/", line):
                break
        assert found, process.stderr.read()
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().read().decode() == (tmp_path / "run" / "report.html").read_text()
        with pytest.raises(OSError):  # no other interface answers
            socket.create_connection((_own_address(), int(found[1])), timeout=2)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 2
        assert process.stderr.read() == "interrupted: a report that was written stays\n"


def _own_address():
    """An address of this machine that is not loopback; on a machine without a network, one that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "192.0.2.1"
        return probe.getsockname()[0]
