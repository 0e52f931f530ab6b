"""`identity outbox`: the queue of mails, for its operator."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

from sqlalchemy.engine import URL

from identity.commands import outbox_views as views
from identity.commands.output import print_whole
from identity.database import Database, behind
from identity.mail.administration import BATCH, Changes, Obstacle, OutboxAdministration
from identity.mail.standing import State

EXIT_DONE: Final = 0
EXIT_REFUSED: Final = 1
# Seconds: a look through all rows of a long history takes a while.
STATEMENT_TIMEOUT: Final = 60.0

# Without --state: what is not sent yet, or will not be.
_UNSENT: Final = (State.QUEUED, State.DEAD)


def run(given: argparse.Namespace, url: URL) -> int:
    """Runs one command on the database; returns the exit code.

    Raises DatabaseUnavailable or `sqlalchemy.exc.DBAPIError`.
    """
    with closing(Database(url, statement_timeout=STATEMENT_TIMEOUT)) as database:
        why = behind(database.revision())
        if why:
            return _refuse(why)
        return _COMMANDS[given.action](OutboxAdministration(database, now=database.now), given)


def _list(outbox: OutboxAdministration, given: argparse.Namespace) -> int:
    states = tuple(State) if given.state == "all" else (State(given.state),) if given.state else ()
    found = outbox.mails(states or _UNSENT, given.limit)
    now = outbox.now()
    mails = [views.mail_fields(mail, now, in_full=given.show_addresses) for mail in found]
    return _print(views.document({"mails": mails}) if given.json else views.mail_table(mails))


def _show(outbox: OutboxAdministration, given: argparse.Namespace) -> int:
    found = outbox.mail(given.id)
    if found is None:
        return _refuse(views.obstacle_line(given.id, Obstacle.UNKNOWN))
    mail = views.mail_fields(found, outbox.now(), in_full=given.show_addresses)
    return _print(views.document(mail) if given.json else views.mail_lines(mail))


def _retry(outbox: OutboxAdministration, given: argparse.Namespace) -> int:
    batches = outbox.dead() if given.all_dead else _batches(given.ids)
    # What a deliverer is at is being tried, as it should be.
    return _report("retried", _all(outbox.retry, batches), Obstacle.CLAIMED, given)


def _drop(outbox: OutboxAdministration, given: argparse.Namespace) -> int:
    # What is dead is never sent, as it should be.
    return _report("dropped", _all(outbox.drop, _batches(given.ids)), Obstacle.DEAD, given)


def _stats(outbox: OutboxAdministration, given: argparse.Namespace) -> int:
    figures = outbox.figures()
    if given.json:
        return _print(views.document(views.figures_fields(figures)))
    return _print(views.figures_lines(figures))


_COMMANDS: Final[dict[str, Callable[[OutboxAdministration, argparse.Namespace], int]]] = {
    "list": _list,
    "show": _show,
    "retry": _retry,
    "drop": _drop,
    "stats": _stats,
}


def _batches(mail_ids: Iterable[str]) -> Iterator[Sequence[str]]:
    distinct = list(dict.fromkeys(mail_ids))
    for start in range(0, len(distinct), BATCH):
        yield distinct[start : start + BATCH]


def _all(change: Callable[[Sequence[str]], Changes], batches: Iterable[Sequence[str]]) -> Changes:
    changes = Changes()
    for batch in batches:
        changes.add(change(batch))
    return changes


def _report(verb: str, changes: Changes, harmless: Obstacle, given: argparse.Namespace) -> int:
    for mail_id, obstacle in changes.obstacles.items():
        _refuse(views.obstacle_line(mail_id, obstacle))
    refused = any(obstacle is not harmless for obstacle in changes.obstacles.values())
    report = f"{verb}: {changes.changed}"
    if given.json:
        report = views.document(views.changes_fields(verb, changes, harmless))
    return _print(report) or (EXIT_REFUSED if refused else EXIT_DONE)


def _print(text: str) -> int:
    why = print_whole(text)
    return _refuse(why) if why else EXIT_DONE


def _refuse(why: str) -> int:
    print(f"identity: {why}", file=sys.stderr)
    return EXIT_REFUSED
