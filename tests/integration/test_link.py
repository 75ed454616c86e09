"""A link that can be cut, over real sockets."""

from __future__ import annotations

import asyncio

from lepton_runtime.drills.link import open_link


async def _echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


def test_what_is_sent_while_a_link_is_cut_arrives_late():
    async def scenario():
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with open_link(f"127.0.0.1:{port}") as link, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*link.address.split(":"))
            writer.write(b"one")
            assert await reader.read(100) == b"one"
            link.cut()
            writer.write(b"two")
            answer = asyncio.create_task(reader.read(100))
            done, _ = await asyncio.wait([answer], timeout=0.2)
            assert not done
            link.mend()
            assert await answer == b"two"
            writer.close()
        server.close()

    asyncio.run(scenario())


def test_an_end_that_goes_away_ends_the_other():
    async def scenario():
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with open_link(f"127.0.0.1:{port}") as link, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*link.address.split(":"))
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        server.close()

    asyncio.run(scenario())
