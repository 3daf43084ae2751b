"""Echoes messages, and says who it is first. Usage: websocket_server.py PORT NAME"""

import asyncio
import sys

import websockets


async def serve(socket):
    await socket.send("hello from " + sys.argv[2])
    async for message in socket:
        await socket.send(message)


async def main():
    async with websockets.serve(serve, "0.0.0.0", int(sys.argv[1]), max_size=None):
        print("listening", flush=True)
        await asyncio.Future()


asyncio.run(main())
