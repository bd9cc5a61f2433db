"""Ceremony logs out of simulated worlds, and what an audit says of them."""

from collections.abc import Sequence
from functools import cache

from common.ids import Epoch
from common.wire.messages import HealRequest
from signer_service.audit.auditor import Auditor
from signer_service.audit.facts import EpochFacts, Logged, Report
from tests import playbook
from tests.world import World

OPERATOR = playbook.public("operator")
BEGIN_MS = 1_700_000_000_000


def logged(log: Sequence[bytes]) -> list[Logged]:
    return [Logged(offset, BEGIN_MS + 1_000 * offset, raw) for offset, raw in enumerate(log)]


def audited(log: Sequence[bytes], operator: str = "operator") -> Report:
    return audited_records(logged(log), operator)


def audited_records(records: Sequence[Logged], operator: str = "operator") -> Report:
    auditor = Auditor(playbook.House(operator).trust, playbook.public(operator))
    for each in records:
        auditor.take(each)
    return auditor.report()


def epochs(report: Report) -> tuple[EpochFacts, ...]:
    (key,) = report.keys
    return key.epochs


def refresh(world: World) -> None:
    epoch = world.key().epoch
    world.ask_refresh(1)
    world.run(lambda: world.agrees(epoch + 1))
    world.run_for(2_500)


@cache
def short_log() -> tuple[bytes, ...]:
    """A key is generated and refreshed, 2-of-3."""
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_500)
    refresh(world)
    # Changes nothing, and vouches for all before it.
    world.say(1, HealRequest(playbook.KEY, Epoch(1)))
    return tuple(world.log)


@cache
def long_log() -> tuple[bytes, ...]:
    """Generate, refresh, heal, grow to 3-of-4, and shrink to 2-of-3 again."""
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_500)
    refresh(world)
    world.lose_disk(3)
    world.run_for(2_500)
    world.start(3)
    world.run(lambda: world.agrees(3))
    world.run_for(2_500)
    world.give_roster(world.house.roster(3, range(1, 5), version=2))
    world.start(4)
    world.run(lambda: world.agrees(4))
    world.run_for(2_500)
    world.give_roster(world.house.roster(2, (1, 2, 3), version=3))
    world.run(lambda: world.agrees(5, (1, 2, 3)))
    world.run_for(2_500)
    return tuple(world.log)
