"""A server in a container: `server.py PORT NAME FILE` answers every request over HTTP with NAME, and writes the time from which it
listens to FILE, by the monotonic clock, which all processes of the machine share. Each connection has a thread: one whose request is
lost with a cable waits until TCP sends it again, for seconds after the cable is back, and nobody else may wait for that."""

import pathlib
import socket
import sys
import threading
import time


def serve(connection, answer):
    with connection:
        try:
            if connection.recv(4096):
                connection.sendall(answer)
        except OSError:
            # The client has left.
            pass


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
        threading.Thread(target=serve, args=(connection, answer), daemon=True).start()


if __name__ == "__main__":
    main()
