"""What a run answers by itself when no proxy can be had."""

import socket
import threading
import time

from mirror.client.sealed.keeper import refuse_one


def test_whoever_asks_is_told_why():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as peer,
    ):
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        refuse_one(listener, "no proxy")
        said = b"".join(iter(lambda: peer.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 403 ")
    assert said.endswith(b"crateseal: no proxy\n")


def test_nobody_is_waited_for_who_sends_a_byte_now_and_then():
    done = threading.Event()

    def trickle(peer):
        while not done.wait(0.1):
            try:
                peer.sendall(b"x")
            except OSError:
                return

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as peer,
    ):
        thread = threading.Thread(target=trickle, args=(peer,))
        thread.start()
        timer = threading.Timer(10, done.set)
        timer.start()
        begin = time.monotonic()
        refuse_one(listener, "no proxy")
        took = time.monotonic() - begin
        done.set()
        timer.cancel()
        thread.join()
    assert took < 5
