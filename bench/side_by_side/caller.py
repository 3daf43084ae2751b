"""Calls of one client, run in the network of its container: `caller.py NAME PORT`. Every 10 ms it asks the container's resolver for
NAME, connects to the address that it says, and fetches a page; whatever is not answered within a second has failed. Each call is a line:
`BEGIN ANSWER`, the time at which it began and what the server said, `-` for a call that failed. Times are the monotonic clock's, which
all processes of the machine share."""

import asyncio
import struct
import sys
import time

from prober import RESOLVER, address, question

PAUSE, PATIENCE = 0.01, 1.0


class Resolver(asyncio.DatagramProtocol):
    """Questions by their numbers."""

    def __init__(self):
        self.waiting, self.number = {}, 0

    def connection_made(self, transport):
        self.transport = transport

    def error_received(self, error):
        pass

    def datagram_received(self, data, _):
        waiting = self.waiting.pop(struct.unpack_from("!H", data)[0], None)
        if waiting and not waiting.done():
            waiting.set_result(address(data))

    async def resolve(self, name):
        self.number = (self.number + 1) % 65536
        number, waiting = self.number, asyncio.get_running_loop().create_future()
        self.waiting[number] = waiting
        self.transport.sendto(question(number, name))
        return await waiting


async def fetch(resolver, name, port):
    found = await resolver.resolve(name)
    if not found:
        raise OSError("no address")
    reader, writer = await asyncio.open_connection(found, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n" % name.encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"200"]:
            raise OSError("no 200")
        return body.decode()
    finally:
        writer.transport.abort()


async def call(resolver, name, port):
    began = time.monotonic()
    try:
        said = await asyncio.wait_for(fetch(resolver, name, port), PATIENCE)
    except (OSError, ValueError, asyncio.TimeoutError):
        said = "-"
    print(began, said, flush=True)


async def main():
    name, port = sys.argv[1], int(sys.argv[2])
    loop = asyncio.get_running_loop()
    _, resolver = await loop.create_datagram_endpoint(Resolver, remote_addr=RESOLVER)
    calls, due = set(), loop.time()
    while True:
        task = loop.create_task(call(resolver, name, port))
        calls.add(task)
        task.add_done_callback(calls.discard)
        due += PAUSE
        await asyncio.sleep(max(0.0, due - loop.time()))


if __name__ == "__main__":
    asyncio.run(main())
