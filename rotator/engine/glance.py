"""A glance of the walk at a page of the register: whoever is in order as it stands is brought to no desk. To come to
one and to leave it again costs several times as much as to see that there is nothing to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Enrolment, Publisher, Roster
from rotator.core.publication import Publication
from rotator.engine import listing, rotation
from rotator.engine.courier import Courier
from rotator.engine.desks import Desks
from rotator.engine.listing import LeftOut
from rotator.engine.tools import Tools

PAGE = 128
"""Files that are looked at in one way to a thread."""


async def wanting(
    names: Collection[str], desks: Desks, refused: LeftOut, roster: Roster | None, tools: Tools
) -> list[str]:
    """These without those who are at no desk and need none. Raises what the store raises."""
    assert roster is not None  # noqa: S101 (nobody walks before there is one)
    absent = [name for name in names if desks.get(name) is None and name not in refused]
    found = [(refused.make(entry, roster), grant) for entry, grant in await refused.read(absent) if grant is not None]
    known = [(enrolment, grant) for enrolment, grant in found if enrolment is not None]
    good = await in_order(known, roster, tools)
    return [name for name in names if name not in good]


async def in_order(found: Iterable[tuple[Enrolment, Grant]], roster: Roster, tools: Tools) -> set[str]:
    """Names of those for whom nothing is to be done before they are due: the record is theirs and valid, and every
    target holds it. Nothing is written, and nobody is told."""
    moment = tools.clock.moment()
    good, wanted, whose = set[str](), list[tuple[Publisher, Publication]](), list[str]()
    for enrolment, grant in found:
        publication = _published(enrolment, grant, moment, tools)
        if publication is not None:
            good.add(grant.name)
            wanted += [(publisher, publication) for publisher in enrolment.targets.values()]
            whose += [grant.name] * len(enrolment.targets)
    stand = await roster.standing(wanted, moment.now)
    return good - {name for name, stands in zip(whose, stand, strict=True) if not stands}


async def look_back(desks: Desks, courier: Courier, roster: Roster, tools: Tools) -> None:
    """Have every local target settled that a resident's token was published in and that holds it no more."""
    moment = tools.clock.moment()
    # A copy: a reload may come between two pages.
    residents = list(desks)
    for first in range(0, len(residents), PAGE):
        wanted, places = list[tuple[Publisher, Publication]](), list[tuple[str, str]]()
        for desk in residents[first : first + PAGE]:
            publication = _published(desk.enrolment, desk.grant, moment, tools)
            if publication is not None:
                local = [(target, place) for target, place in desk.enrolment.targets.items() if place.local]
                wanted += [(place, publication) for _, place in local]
                places += [(desk.enrolment.name, target) for target, _ in local]
        stand = await roster.standing(wanted, moment.now)
        for (name, target), stands in zip(places, stand, strict=True):
            if not stands:
                courier.touched(name, target)


def _published(enrolment: Enrolment, grant: Grant, moment: Moment, tools: Tools) -> Publication | None:
    """What every target must hold; None where the record alone needs somebody who thinks about it."""
    access = grant.access
    if access is None or not access.is_valid(moment.now) or grant.unproven or grant.due_at is None:
        return None
    if listing.is_of_the_future(grant, moment) or grant.identity != rotation.identity(enrolment, tools):
        return None
    return Publication(grant.name, grant.lineage, access)
