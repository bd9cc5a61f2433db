"""Whether another ceremony log is begun, and what it goes on from: a decision of the operator, so of one roster.

A log that is lost is replaced by the next generation. Which generation the operator leaves stands beside the key
records that he brings, and not in them: a log that is lost before its first commit leaves the same records as the one
before it, and is lost all the same.
"""

from dataclasses import dataclass

from common.errors import BadInput
from common.ids import KeyId
from common.wire import codec
from common.wire.messages import KeyRecord, Roster, RosterKey, Seat


@dataclass(frozen=True, slots=True)
class NewLog:
    """What the operator asks for.

    ``leaves``: the generation whose log is lost. ``records``: one of each key, in the order of their names.
    ``never_made``: keys of the roster that have no record because no ceremony ever made them.
    """

    leaves: int
    records: tuple[bytes, ...]
    never_made: frozenset[KeyId] = frozenset()


@dataclass(frozen=True, slots=True)
class LogToBe:
    """The roster's part about its log, and a line for a person if there is something to say."""

    generation: int
    checkpoints: tuple[bytes, ...]
    line: str = ""


def log_to_be(
    old: Roster | None, keys: tuple[RosterKey, ...], seats: tuple[Seat, ...], asked: NewLog | None
) -> LogToBe:
    """Which ceremony log counts, and the key records that it goes on from.

    Raises:
        BadInput: code ``key-records``: what is asked for does not fit the roster. One line, with the remedy.
    """
    if asked is None:
        return LogToBe(old.log_generation, old.checkpoints) if old is not None else LogToBe(1, ())
    if old is None:
        raise _refuse("there is no roster to go on from: bring roster.avro for this run")
    if asked.leaves < old.log_generation:
        if asked.records != old.checkpoints:
            raise _refuse(
                f"they leave the log of generation {asked.leaves}, and this roster is at {old.log_generation} already, "
                "begun from others: if that log is lost as well, print them anew with `key-records`"
            )
        said = f"log generation {old.log_generation}: begun from these records; if it is lost as well, print them anew"
        return LogToBe(old.log_generation, old.checkpoints, said)
    if asked.leaves > old.log_generation:
        raise _refuse(
            f"they leave the log of generation {asked.leaves}, and this roster is of {old.log_generation}: "
            "bring the roster that the signers have"
        )
    if (keys, seats) != (old.keys, old.seats):
        # Two changes at once could not be told apart by who looks at what went wrong.
        raise _refuse("a new log is begun with the committee as it is: change that afterwards")
    _check_keys({key.key_id for key in keys}, asked)
    generation = old.log_generation + 1
    named = ", ".join(sorted(_named(asked.records)))
    never = f"; never made: {', '.join(sorted(asked.never_made))}" if asked.never_made else ""
    return LogToBe(
        generation, asked.records, f"log generation {generation}: goes on from the records of {named}{never}"
    )


def _check_keys(keys: set[KeyId], asked: NewLog) -> None:
    held = _named(asked.records)
    if foreign := sorted((held | asked.never_made) - keys):
        raise _refuse(f"the roster has no key {', '.join(foreign)}")
    if made := sorted(held & asked.never_made):
        raise _refuse(f"there is a record of {', '.join(made)}: it was made")
    if missing := sorted(keys - held - asked.never_made):
        # On the new log that key would be one that was never made.
        raise _refuse(
            f"there is no record of {', '.join(missing)}: on a new log it would be lost "
            "(if no ceremony ever made it, say so with --never-made)"
        )


def _named(records: tuple[bytes, ...]) -> set[KeyId]:
    return {codec.decode(raw, KeyRecord).key_id for raw in records}


def _refuse(detail: str) -> BadInput:
    return BadInput("key-records", f"key records: {detail}")
