"""Calls every kind of method on one channel, and says what came of it as JSON. Usage: grpc_client.py HOST:PORT CALLS"""

import collections
import json
import queue
import sys

import grpc

target, calls = sys.argv[1], int(sys.argv[2])
said = {}
with grpc.insecure_channel(target) as channel:
    who = channel.unary_unary("/shop.Test/Who")
    names = collections.Counter()
    for _ in range(calls):
        answer, call = who.with_call(b"", timeout=60)
        trailers = dict(call.trailing_metadata())
        assert trailers["served-by"] == answer.decode(), trailers
        names[answer.decode()] += 1
    said["by"] = names
    try:
        channel.unary_unary("/shop.Test/Fail")(b"", timeout=60)
    except grpc.RpcError as error:
        said["failed"] = [error.code().name, error.details()]
    said["count"] = len(list(channel.unary_stream("/shop.Test/Count")(b"1000", timeout=60)))
    add = channel.stream_unary("/shop.Test/Add")
    said["sum"] = int(add((str(number).encode() for number in range(1000)), timeout=60))
    # Every word is answered before the next one is said.
    words, echoed = queue.Queue(), []
    words.put(b"0")
    stream = channel.stream_stream("/shop.Test/Echo")(iter(words.get, None), timeout=60)
    for answer in stream:
        echoed.append(int(answer))
        words.put(str(len(echoed)).encode() if len(echoed) < 10 else None)
    said["echoed"] = echoed
print(json.dumps(said))
