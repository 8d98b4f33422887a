"""The matrix: each call of a rotation, killed once and failed once, and what became of the chain and of the readers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.stage import wait_for
from tests.faults import points, tracer
from tests.faults.hall import Machine, Order
from tests.faults.points import Half, Place, Point
from tests.faults.tracer import Call, Fault

# A wake-up more or less shifts the numbers of a thread: the log tells what was struck, and then it is aimed again.
TRIES = 6

# As in drivers/sqlite/schema; the second is more than a rotation appends to the log, by which it may be early.
CHECKPOINT_PAGES = 256
FRAMES_OF_A_ROTATION = 16

Plan = dict[Point, Call]


@dataclass(frozen=True, slots=True)
class Row:
    """One run. ``lost`` says that the provider committed an exchange that our store never held, ``wrong`` what should
    not have happened."""

    point: Point
    fault: Fault
    lost: bool
    passwords: int
    seconds: float
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        cost = f"{self.passwords} login" if self.passwords else "nothing"
        lost = ", the answer lost in the window" if self.lost else ""
        wrong = f", WRONG: {'; '.join(self.wrong)}" if self.wrong else ""
        return f"| {self.point} | {self.fault} | {cost}{lost}{wrong} | {self.seconds:.1f} s |"


@dataclass
class Matrix:
    """Strikes a machine. ``plan`` says which thread makes which call, and as which of its name, in this life;
    ``astray`` are the runs whose fault hit a call that touches none of what counts, and was felt all the same."""

    machine: Machine
    logs: Path
    plan: Plan = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    astray: list[Row] = field(default_factory=list)
    missed: int = 0

    def learn(self) -> Plan:
        """Trace a rotation in each half."""
        self.plan = {}
        for half in Half:
            log = self.logs / f"clean-{half}"
            self._rotate(half, log, None, tracer.all_calls())
            self.plan |= dict(points.of(tracer.read(log), half, self.machine.folder))
        return self.plan

    def strike(self, point: Point, fault: Fault) -> Row:
        """Strike exactly ``point``; whatever else was struck on the way has its row as well."""
        for _ in range(TRIES):
            if (call := self.plan.get(point)) is not None:
                row = self.run(point.half, call.thread, call.name, call.number, fault)
                if row is not None and row.point == point:
                    return row
            self.missed += 1
            self.learn()
        raise AssertionError(f"{point} was not struck in {TRIES} tries")

    def strike_all(self, half: Half, place: Place, name: str, fault: Fault) -> int:
        """Strike the 1st, 2nd, 3rd … call of that name until a rotation passes without the fault having struck.
        Returns how many rotations it took."""
        for number in itertools.count(1):
            # Looked up each time: a life has its own threads.
            ours = [call for at, call in self.plan.items() if (at.half, at.place, at.name) == (half, place, name)]
            known = {call.number: call for call in ours}
            if number <= max(known) and (number not in known or not (fault.kills or points.can_fail(known[number]))):
                continue  # Another call of that thread, such as one of the control socket, or one that never fails.
            if self.run(half, ours[0].thread, name, number, fault) is None and number > max(known):
                return number
        raise AssertionError("unreachable")

    def run(self, half: Half, thread: int, name: str, number: int, fault: Fault) -> Row | None:
        """One rotation with one fault; None where it struck nothing that counts. Afterwards all is settled again."""

        def strike() -> Point | None:
            self._rotate(half, self.log, thread, tracer.one_fault(name, number, fault))
            return points.struck(tracer.read(self.log, thread), half, self.machine.folder)

        return self._judged(fault, strike)

    def run_checkpoint(self, name: str, number: int, fault: Fault) -> Row | None:
        """The same for a rotation in which SQLite moves its log into the database: of one that is due, the calls on
        the database file alone are counted."""
        machine = self.machine
        # A log that is full has been moved already, and begins anew with the next write.
        while not 0 < CHECKPOINT_PAGES - machine.frames() <= FRAMES_OF_A_ROTATION:
            machine.rotate()

        def strike() -> Point | None:
            only = ("-P", str(machine.stage.database))
            with tracer.attached(self.log, machine.process.pid, *only, *tracer.one_fault(name, number, fault)):
                for _ in range(2):
                    machine.rotate(or_fail=True)
            return points.struck_of_checkpoint(tracer.read(self.log))

        return self._judged(fault, strike)

    @property
    def log(self) -> Path:
        return self.logs / "run"

    def _judged(self, fault: Fault, strike: Callable[[], Point | None]) -> Row | None:
        machine = self.machine
        granted, passwords, generation = machine.granted, machine.passwords, machine.stored().generation
        began, wrong = time.monotonic(), []
        point = strike()
        died = machine.process.popen.poll() is not None
        if died:
            wrong += self._bury(fault)
            machine.start()
        seconds = time.monotonic() - began
        stored, spent = machine.stored(), machine.passwords - passwords
        lost = machine.granted - granted - (stored.generation - generation)
        if died:
            self.learn()
        wrong += [f"temporary files: {left}"] if (left := machine.leftovers()) else []
        wrong += [f"the state is damaged: {stored.damage}"] if stored.damage else []
        wrong += [f"{spent} logins for {lost} lost answers"] if spent != lost or lost > 1 else []
        if point is None or point.place is Place.ELSEWHERE:
            # A call that tells of no step, such as one of the control socket: only a death explains what was lost.
            wrong += [f"{lost} answers lost, and nobody died"] if lost and not died else []
            if died or lost or wrong:
                self.astray.append(Row(point or points.NOWHERE, fault, lost > 0, spent, seconds, tuple(wrong)))
            return None
        wrong += [f"{lost} answers lost outside the window"] if lost and not point.in_window else []
        self.rows.append(Row(point, fault, lost > 0, spent, seconds, tuple(wrong)))
        return self.rows[-1]

    def _rotate(self, half: Half, log: Path, thread: int | None, options: tuple[str, ...]) -> None:
        """Order a rotation and trace its ``half``; the provider holds its answer between the two. Returns when the
        daemon has settled or died."""
        machine = self.machine
        process, order = machine.process, Order(machine.client)
        traced = tracer.attached(log, process.pid, *options, thread=thread)
        machine.gate.close()
        try:
            if half is Half.REQUEST:
                with traced:
                    order.start()
                    wait_for(lambda: machine.gate.arrived or not order.is_alive(), "the request or its failure")
            else:
                order.start()
                wait_for(lambda: machine.gate.arrived, "the request")
                with traced:
                    machine.gate.open()
                    order.join()
                    machine.wait_settled(or_dead=True)
        finally:
            machine.gate.open()
        order.join()
        machine.wait_settled(or_dead=True)

    def _bury(self, fault: Fault) -> list[str]:
        process, stored = self.machine.process, self.machine.stored()
        code = process.popen.wait()
        wrong = [] if fault.kills and code == -9 else [f"the daemon ended with {code}"]
        return wrong + ([f"the state is damaged: {stored.damage}"] if stored.damage else [])


def table(title: str, rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    head = f"# {title}\n\n| call | fault | cost | until all was well |\n|---|---|---|---|\n"
    return head + "".join(f"{row}\n" for row in rows)
