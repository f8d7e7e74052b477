"""A wire with latency and little bandwidth before a server: python bench/slow_proxy.py HOST:PORT

Relays TCP connections from a port of its own, which it prints, to HOST:PORT. Bytes come half a round trip later than
they were sent, and no faster than the bandwidth of a connection, each way; a connection costs a round trip before it
carries anything, as a handshake does. There is no slow start, and no loss. Ended by SIGTERM, it prints as JSON the
connections, the requests by method, and the bytes that came back.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter

ROUND_TRIP_S = 0.1
BYTES_PER_S = 20e6  # of a connection, each way
_CHUNK_BYTES = 1 << 16
_CHUNKS_UNDER_WAY = 64  # 4 MiB: more than a wire of this bandwidth and latency holds
_METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")

seen: Counter[str] = Counter()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opens_s: float, *, back: bool) -> None:
    """One direction of a connection. `opens_s`: the loop's time from which on something can leave."""
    clock = asyncio.get_running_loop().time
    wire: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY)

    async def arrive() -> None:
        while True:
            due_s, data = await wire.get()
            await asyncio.sleep(max(0.0, due_s - clock()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    arriving = asyncio.create_task(arrive())
    free_s = opens_s
    data = b"any"
    while data:
        try:
            data = await reader.read(_CHUNK_BYTES)
        except ConnectionError:
            data = b""
        if back:
            seen["bytes"] += len(data)
        else:  # a request's head is the first of what its client writes
            seen.update(method.decode().strip() for method in _METHODS if data.startswith(method))
        free_s = max(free_s, clock()) + len(data) / BYTES_PER_S
        await wire.put((free_s + ROUND_TRIP_S / 2, data))
    await asyncio.gather(arriving, return_exceptions=True)  # who went away needs no more


async def main(upstream: str) -> None:
    host, _, port = upstream.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        opens_s = asyncio.get_running_loop().time() + ROUND_TRIP_S
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            relay(reader, server_writer, opens_s, back=False), relay(server_reader, writer, opens_s, back=True)
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=128)
    print(server.sockets[0].getsockname()[1], flush=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    await asyncio.Event().wait()


def end() -> None:
    print(json.dumps(seen), flush=True)
    os._exit(0)  # connections are cut, without a word about each


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
