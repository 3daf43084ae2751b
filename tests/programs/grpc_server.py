"""A gRPC server without generated code: bytes in, bytes out. Usage: grpc_server.py PORT NAME"""

import sys
from concurrent import futures

import grpc

port, name = sys.argv[1], sys.argv[2].encode()


def who(request, context):
    context.set_trailing_metadata((("served-by", name.decode()),))
    return name


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä")


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def add(requests, context):
    return str(sum(int(request) for request in requests)).encode()


def echo(requests, context):
    for request in requests:
        yield request


handlers = {
    "Who": grpc.unary_unary_rpc_method_handler(who),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Add": grpc.stream_unary_rpc_method_handler(add),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Test", handlers),))
server.add_insecure_port("0.0.0.0:" + port)
server.start()
print("listening", flush=True)
server.wait_for_termination()
