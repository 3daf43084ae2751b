"""Talks to an echo over one WebSocket, and closes it in order. Usage: websocket_client.py URL"""

import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1], max_size=None) as socket:
        print(await socket.recv())
        for message in ["text", b"\0binary", "large " * 200_000]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    print("closed", socket.close_code)


asyncio.run(main())
