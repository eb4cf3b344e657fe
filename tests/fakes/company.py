"""A company's network on loopback: an authority of its own, a TLS upstream, and the one way out.

The upstream's name, `index.upstream.test`, is in no DNS: only the proxy knows it. Whoever gets to
the upstream came through the proxy, and whoever trusts it was given the authority's certificate.
"""

import base64
import datetime as dt
import secrets
import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager, suppress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "index.upstream.test"
_DAY = dt.timedelta(days=1)


class Authority:
    """A private certificate authority; `file` holds its certificate."""

    def __init__(self, folder):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = f"Company CA {secrets.token_hex(4)}"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        is_ca = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign(self._name, self._key.public_key(), is_ca)
        self.file = folder / "authority.pem"
        self.file.write_bytes(_pem(self._certificate))

    def server_context(self, host):
        """Return what a TLS server of this name needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        file = self._folder / f"{host}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write_bytes(private + _pem(self._sign(subject, key.public_key(), names)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(self, subject, key, extension):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class _Listener:
    """Takes connections on loopback, each in a thread of its own, until the `with` block ends."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._socket.getsockname()[1]
        self._open = set()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection):
        self._open.add(connection)
        with suppress(OSError), connection:
            self.handle(connection)
        self._open.discard(connection)


class TlsFront(_Listener):
    """TLS in front of a plain server's port."""

    def __init__(self, context, port):
        super().__init__()
        self._context = context
        self._behind = port

    def handle(self, connection):
        with (
            self._context.wrap_socket(connection, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", self._behind)) as inner,
        ):
            _relay(outer, inner)


class Proxy(_Listener):
    """Tunnels (CONNECT) and forwards (absolute URL) to the hosts it knows; the port tells which."""

    def __init__(self, hosts, *, login=None):
        super().__init__()
        self.hosts = hosts
        """`host:port` -> a port on loopback."""
        self.asked = []
        """First line of every request."""
        encoded = login and base64.b64encode(login.encode()).decode()
        self._needed = encoded and f"proxy-authorization: basic {encoded}".lower()

    def url(self, login=""):
        return f"http://{login and login + '@'}127.0.0.1:{self.port}"

    def handle(self, connection):
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        line, *headers = head.decode("latin-1").split("\r\n")
        self.asked.append(line)
        method, target, _ = line.split(" ")
        if self._needed and self._needed not in [each.lower() for each in headers]:
            _say(connection, "407 Proxy Authentication Required")
        elif method == "CONNECT":
            self._tunnel(connection, target)
        else:
            self._forward(connection, head, target)

    def _tunnel(self, connection, target):
        if target not in self.hosts:
            _say(connection, "502 Bad Gateway")
            return
        with socket.create_connection(("127.0.0.1", self.hosts[target])) as inner:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _relay(connection, inner)

    def _forward(self, connection, head, target):
        host, _, path = target.removeprefix("http://").partition("/")
        known = self.hosts.get(host if ":" in host else f"{host}:80")
        if known is None:
            _say(connection, "502 Bad Gateway")
            return
        with socket.create_connection(("127.0.0.1", known)) as inner:
            lines = head.replace(target.encode(), f"/{path}".encode(), 1)
            inner.sendall(lines.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            _copy(inner, connection)


def _say(connection, status):
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


def _relay(one, other):
    there = threading.Thread(target=_copy, args=(one, other), daemon=True)
    there.start()
    _copy(other, one)
    there.join(5)


def _copy(source, sink):
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def company(folder, upstream, *, login=None):
    """Yield (authority, proxy) of a network with a plain fake upstream behind TLS.

    The upstream has to name `https://NAME/…` in its config.json.
    """
    authority = Authority(folder)
    plain = int(upstream.url.rpartition(":")[2])
    with ExitStack() as stack:
        front = stack.enter_context(TlsFront(authority.server_context(NAME), plain))
        hosts = {f"{NAME}:443": front.port, f"{NAME}:80": plain}
        yield authority, stack.enter_context(Proxy(hosts, login=login))
