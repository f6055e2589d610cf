"""Sockets of every kind, to here and outside."""

# ruff: noqa: E501  (programs in strings)

from hostile.base import case, refused


@case("connects to loopback", """
def f(x):
    import socket
    return tried(lambda: socket.create_connection(("127.0.0.1", @TCP@), timeout=0.2),
        lambda: socket.create_connection(("::1", @TCP@), timeout=0.2))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("connects to the world", """
def f(x):
    import socket
    return tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.2), lambda: socket.gethostbyname("example.com"))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("sends a datagram", """
def f(x):
    import socket
    return tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @UDP@)))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("reaches an abstract socket and one with a name", """
def f(x):
    import socket
    def to(address):
        s = socket.socket(socket.AF_UNIX); s.connect(address); return "connected"
    return tried(lambda: to("\\0@ABSTRACT@"), lambda: to("@FOLDER@/socket"), lambda: to("/run/docker.sock"), lambda: to("/var/run/nscd/socket"))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0


@case("listens", """
def f(x):
    import socket
    def go():
        s = socket.socket(); s.bind(("0.0.0.0", 0)); s.listen(); return s.getsockname()
    return tried(go, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)


@case("fetches a page", """
def f(x):
    import urllib.request
    return tried(lambda: urllib.request.urlopen("http://127.0.0.1:@TCP@/", timeout=0.2).read())
""")  # fmt: skip
def _(outcome, world):
    refused(outcome, world)
    assert world.visitors() == 0
