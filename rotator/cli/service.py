"""`rotator run`: the daemon, or one pass of it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Mapping

from rotator.cli import leaving
from rotator.core.health import Health, State

EXIT_PERSON = 77
EXIT_AGAIN = 75


GARBAGE = (20_000, 10, 10)
"""When Python looks for garbage (gc.set_threshold). What a rotation leaves behind is freed without a look; with its
default of 700 a thousand rotations at once meant looks of up to 36 ms each, in vain, while the loop stood still."""


class _Signals:
    """Handlers that stand before the first file is read: as process 1 of a container a signal without a handler is
    ignored, and a SIGHUP without one would kill. What came early is passed on as soon as there is a daemon."""

    def __init__(self) -> None:
        self.early: set[int] = set()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda received, frame: self.early.add(received))

    def pass_to(self, stop: Callable[[], None], hang_up: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number, react in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, hang_up)):
            loop.add_signal_handler(number, react)
            if number in self.early:
                react()


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The daemon until SIGTERM (0); with --once until every grant is published (0), needs a person (77) or time ran
    out (75)."""
    signals = _Signals()
    # What is imported stays for good: looking for garbage among it is 5 % of a start, and of every full collection.
    gc.disable()
    from rotator import assembly
    from rotator.frontends import telemetry

    # SIGABRT is how systemd's watchdog ends us: the journal then shows where the loop stood. No values are printed.
    if sys.stderr.isatty() is False:
        import faulthandler

        faulthandler.enable()
    plan = assembly.read(arguments.config, environ)

    async def live() -> int:
        code = await serve()
        # Here already: the loop too waits for a thread of its own, which looks up a name.
        leaving.soon(code)
        return code

    async def serve() -> int:
        built = assembly.build(plan, log_level=arguments.log_level)
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        gc.enable()
        signals.pass_to(built.daemon.stop, built.daemon.hang_up)
        with telemetry.setup(built.level, built.log):
            if arguments.once:
                try:
                    health = await built.daemon.once(assembly.span(arguments.within, "--within"))
                finally:
                    if built.tracing is not None:
                        await built.tracing.close()
                print(health.line(), file=sys.stderr)
                return _verdict(health)
            await built.daemon.serve(built.faces)
            return 0

    return asyncio.run(live())


def _verdict(health: Health) -> int:
    if health.well:
        return 0
    waiting = any(grant.state in (State.LATCHED, State.PERSON_NEEDED) for grant in health.grants)
    return EXIT_PERSON if waiting else EXIT_AGAIN
