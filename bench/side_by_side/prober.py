"""What a container sees of another one: run in its network, told by standard input.

`up NAME` asks the container's resolver for NAME, and the address that it says for an answer over HTTP, without pause; says `resolved
TIME` and `answered TIME`. `down NAME` asks the resolver until NAME has no address, and says `gone TIME`. Times are the monotonic
clock's, which all processes of the machine share."""

import select
import socket
import struct
import sys
import time

RESOLVER, PORT = ("127.0.0.11", 53), 8080
PAUSE, PATIENCE, MOST = 0.002, 30.0, 200


def question(number, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def address(answer):
    """The last record's data, if the answer has one: an address, asked for by one question."""
    return socket.inet_ntoa(answer[-4:]) if struct.unpack_from("!H", answer, 6)[0] else None


def _ask(name, wanted):
    """Asks without pause until what is answered is `wanted`; the address."""
    asked, number = time.monotonic(), 0
    deadline = asked + PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.connect(RESOLVER)
        while time.monotonic() < deadline:
            if time.monotonic() >= asked:
                number, asked = (number + 1) % 65536, time.monotonic() + PAUSE
                try:
                    resolver.send(question(number, name))
                except OSError:
                    continue
            if not select.select([resolver], [], [], max(0.0, asked - time.monotonic()))[0]:
                continue
            try:
                found = address(resolver.recv(512))
            except OSError:
                continue
            if wanted(found):
                return found
    raise TimeoutError(f"{name} is as it was for {PATIENCE} s")


def _fetch(place):
    """Asks without pause until there is an answer; connections that say nothing do not hold up the next ones."""
    waiting, poll, asked = {}, select.epoll(), time.monotonic()
    deadline = asked + PATIENCE

    def close(number):
        poll.unregister(number)
        waiting.pop(number).close()

    while time.monotonic() < deadline:
        if time.monotonic() >= asked and len(waiting) < MOST:
            asked = time.monotonic() + PAUSE
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.setblocking(False)
            connection.connect_ex((place, PORT))
            waiting[connection.fileno()] = connection
            poll.register(connection.fileno(), select.EPOLLOUT)
        for number, event in poll.poll(max(0.0, asked - time.monotonic())):
            try:
                if event & select.EPOLLIN:
                    if waiting[number].recv(512).split(b" ", 2)[1:2] == [b"200"]:
                        return
                    close(number)
                elif event & (select.EPOLLERR | select.EPOLLHUP):
                    close(number)
                else:
                    waiting[number].send(b"GET / HTTP/1.0\r\n\r\n")
                    poll.modify(number, select.EPOLLIN)
            except OSError:
                close(number)
    raise TimeoutError(f"no answer of {place} for {PATIENCE} s")


def _say(what):
    print(what, time.monotonic(), flush=True)


def main():
    for line in sys.stdin:
        word, name = line.split()
        if word == "up":
            found = _ask(name, lambda found: found is not None)
            _say("resolved")
            _fetch(found)
            _say("answered")
        else:
            _ask(name, lambda found: found is None)
            _say("gone")


if __name__ == "__main__":
    main()
