"""The server's life: from the first free port to the signal that ends it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from aiohttp import web

from cai_cli.errors import Exit, Fix
from cai_cli.simulate.options import Options
from cai_cli.simulate.server import Server

HOST = "127.0.0.1"  # and no other: it answers whoever asks
BACKLOG = 4096  # connections that wait to be accepted
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def serve(options: Options, port: int, ready: Callable[[int], None], with_parent: bool = False) -> None:
    """Serve until a signal: Ctrl-C, TERM or HUP ends it well.

    Takes: `port`, 0 for any free one; `ready`, which is told the port once it answers; `with_parent`: end with standard input too
    Raises: Fix: options that cannot be followed, a port that is taken
    """
    server, stopped = Server(options), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background
            loop.add_signal_handler(number, stopped.set)
    if with_parent:
        # The parent holds the other end and writes nothing: it closes when the parent ends, however it ends.
        loop.add_reader(sys.stdin, stopped.set)
    runner = web.AppRunner(server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await _open(runner, port)
        ready(runner.addresses[0][1])
        await stopped.wait()
    finally:
        await runner.cleanup()


async def _open(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port, backlog=BACKLOG).start()
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition("): ")[2]
        raise Fix(f"cannot listen on {HOST}:{port}: {reason}", "take any free port: cai simulate --port 0", Exit.USAGE) from error
