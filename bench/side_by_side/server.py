"""A server in a container: `server.py PORT NAME FILE` answers every request over HTTP with NAME, one connection after another, and
writes the time from which it listens to FILE, by the monotonic clock, which all processes of the machine share."""

import pathlib
import socket
import sys
import time


def main():
    port, name, file = int(sys.argv[1]), sys.argv[2].encode(), pathlib.Path(sys.argv[3])
    listener = socket.create_server(("", port), backlog=1024)
    listens = time.monotonic()
    written = file.with_suffix(".new")
    written.write_text(str(listens))
    written.rename(file)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(name), name)
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                if connection.recv(4096):
                    connection.sendall(answer)
            except OSError:
                continue


if __name__ == "__main__":
    main()
