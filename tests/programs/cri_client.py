"""Runs a pod by containerd's CRI, as the kubelet does: cri_client.py SOCKET NAME [ANNOTATION=VALUE...]; `cri_client.py SOCKET -ID` ends one.

The messages (runtime.v1.RuntimeService) are written by hand: no generated code of Kubernetes is at hand.
"""

import sys

import grpc


def number(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(place, data):
    data = data.encode() if isinstance(data, str) else data
    return number(place << 3 | 2) + number(len(data)) + data


def call(channel, method, request):
    def same(data):
        return data

    method = channel.unary_unary("/runtime.v1.RuntimeService/" + method, request_serializer=same, response_deserializer=same)
    return method(request, timeout=60)


def main():
    socket, name, *annotations = sys.argv[1:]
    channel = grpc.insecure_channel("unix://" + socket)
    if name.startswith("-"):
        call(channel, "StopPodSandbox", field(1, name[1:]))
        call(channel, "RemovePodSandbox", field(1, name[1:]))
        return
    metadata = field(1, name) + field(2, "uid-" + name) + field(3, "prod")
    config = field(1, metadata) + field(2, name) + field(3, "/run/pods")
    for annotation in annotations:
        key, value = annotation.split("=", 1)
        config += field(7, field(1, key) + field(2, value))
    config += field(8, field(1, "/pods-" + name))
    try:
        print(call(channel, "RunPodSandbox", field(1, config))[2:].decode())
    except grpc.RpcError as error:
        sys.exit(error.details())


main()
