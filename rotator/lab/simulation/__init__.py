"""Months of a fleet in seconds: the real engine, lifecycle and token endpoint against the emulated provider, in
virtual time, under seeded faults; then the invariants, then a verdict.

The same seed tells the same story. A story is a script of misfortunes (`script`), played (`story`) on a machine
(`machine`) by processes (`cast`) under the eyes of a judge (`judge`) and of readers (`readers`); one that breaks is cut
down to the shortest that still does (`shrinking`).
"""

from rotator.lab.simulation.machine import Verdict
from rotator.lab.simulation.script import Misfortune, Plan, What, read, stories, write
from rotator.lab.simulation.story import Simulation, quiet, run

__all__ = ["Misfortune", "Plan", "Simulation", "Verdict", "What", "quiet", "read", "run", "stories", "write"]
