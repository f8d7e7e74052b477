"""A proxy with latency and little bandwidth before a server: python bench/slow_proxy.py HOST:PORT

Relays TCP connections from a port of its own, which it prints, to HOST:PORT. In each direction, bytes arrive half a
round trip after they were sent, and no faster than the bandwidth of a connection. A new connection takes a round trip
before it carries anything, like a TCP handshake. Slow start and loss are not simulated.

On SIGTERM it prints as JSON the connections, the requests by method, and the bytes of the responses.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter

ROUND_TRIP_S = 0.1
BYTES_PER_S = 20e6  # of a connection, in each direction
_CHUNK_BYTES = 1 << 16
_CHUNKS_IN_FLIGHT = 64  # 4 MiB: more than fits into this bandwidth and latency
_METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")

counts: Counter[str] = Counter()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opens_s: float, *, back: bool) -> None:
    """Relay one direction of a connection.

    Args:
        reader, writer: where bytes come from and go to.
        opens_s: the event loop's time at which the connection is open.
        back: from the server to the client.
    """
    clock = asyncio.get_running_loop().time
    in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_IN_FLIGHT)

    async def deliver() -> None:
        while True:
            due_s, data = await in_flight.get()
            await asyncio.sleep(max(0.0, due_s - clock()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    delivery = asyncio.create_task(deliver())
    free_s = opens_s
    data = b"not empty"
    while data:
        try:
            data = await reader.read(_CHUNK_BYTES)
        except ConnectionError:
            data = b""
        if back:
            counts["bytes"] += len(data)
        else:  # a client starts a write with the head of a request
            counts.update(method.decode().strip() for method in _METHODS if data.startswith(method))
        free_s = max(free_s, clock()) + len(data) / BYTES_PER_S
        await in_flight.put((free_s + ROUND_TRIP_S / 2, data))
    await asyncio.gather(delivery, return_exceptions=True)  # the receiver may have closed the connection


async def main(upstream: str) -> None:
    host, _, port = upstream.rpartition(":")

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts["connections"] += 1
        opens_s = asyncio.get_running_loop().time() + ROUND_TRIP_S
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            relay(reader, server_writer, opens_s, back=False), relay(server_reader, writer, opens_s, back=True)
        )

    server = await asyncio.start_server(connect, "127.0.0.1", 0, backlog=128)
    print(server.sockets[0].getsockname()[1], flush=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    await asyncio.Event().wait()


def end() -> None:
    print(json.dumps(counts), flush=True)
    os._exit(0)  # closes the connections without a message about each


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
