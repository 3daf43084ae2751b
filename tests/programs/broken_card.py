"""Two network cards on one wire: broken_card.py LEFT RIGHT joins the devices LEFT and RIGHT of this namespace.

The card that LEFT stands for says that it makes checksums, and leaves them out inside of VXLAN (UDP port 4789). All else passes as it is,
those of the UDP datagrams outside too, with what the kernel says of checksums and segments (virtio_net_hdr), as between two ends of a veth
pair.
"""

import selectors
import socket
import struct
import sys

SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING, ETH_P_ALL = 263, 15, 4, 3
HEADER, NEEDS_CHECKSUM = 10, 1
LONGEST = 1 << 17


def card(device):
    card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    card.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    card.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    card.bind((device, ETH_P_ALL))
    return card


def leaves_out(packet):
    """True if a checksum is to be made inside of a tunnel."""
    flags, start, frame = packet[0], struct.unpack_from("=H", packet, 6)[0], packet[HEADER:]
    if frame[12:14] == b"\x08\x00":  # IPv4
        protocol, udp = frame[23], 14 + 4 * (frame[14] & 15)
    elif frame[12:14] == b"\x86\xdd":  # IPv6
        protocol, udp = frame[20], 14 + 40
    else:
        return False
    return flags & NEEDS_CHECKSUM and protocol == 17 and frame[udp + 2:udp + 4] == b"\x12\xb5" and start > udp


def main():
    left, right = map(card, sys.argv[1:3])
    selector = selectors.DefaultSelector()
    selector.register(left, selectors.EVENT_READ, right)
    selector.register(right, selectors.EVENT_READ, left)
    print("joined", flush=True)
    while True:
        for key, _ in selector.select():
            try:
                packet, address = key.fileobj.recvfrom(LONGEST)
            except OSError:
                continue  # segments in tunnels cannot be described
            if address[2] == PACKET_OUTGOING:
                continue
            if key.fileobj is left and leaves_out(packet):
                packet = bytes(HEADER) + packet[HEADER:]
            try:
                key.data.send(packet)
            except OSError:
                pass  # too long, or the other end is down


main()
