"""A TCP proxy between a client and a server, to make a network slow or to cut it."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK_BYTES = 65_536
_READY_S_MAX = 10.0


class Proxy:
    """Passes on to 127.0.0.1:`target_port`. What the server sends arrives `delay_s` later; `port` is where it listens."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        server = self._run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]

    def cut(self) -> int:
        """Close every connection at once, whatever is under way; how many there were."""
        return self._run(self._cut())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_READY_S_MAX)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers |= {writer, server_writer}
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer, back=True))
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if back and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    async def _cut(self) -> int:
        cut = list(self._writers)
        for writer in cut:
            writer.transport.abort()
        self._writers.clear()
        return len(cut)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_READY_S_MAX)


@contextlib.contextmanager
def proxy_of(port: int) -> Iterator[Proxy]:
    """A proxy of a port of this machine."""
    proxy = Proxy(port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
