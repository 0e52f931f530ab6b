"""What `identity outbox` takes on the command line. Imports nothing of the service."""

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse gives it no name

DEFAULT_LIMIT: Final = 50
MAXIMUM_LIMIT: Final = 10_000  # rows; the whole answer is held in memory

_EXIT_CODES: Final = "Exit codes: 0 done, 1 refused or failed, 2 misused."


def add_outbox(commands: "Commands") -> None:
    """Adds `outbox` and its own commands."""
    outbox = commands.add_parser(
        "outbox",
        help="look at the queue of mails, mend it, count it",
        description="Looks at the queue of mails in the database that IDENTITY_DATABASE_URL "
        "names, and mends it, while the service runs or not. Needs no secret keys and prints no "
        "tokens.",
        epilog=_EXIT_CODES,
    )
    actions = outbox.add_subparsers(dest="action", required=True, metavar="COMMAND")
    common = _common()
    _add_list(actions, common)
    _add_show(actions, common)
    _add_retry(actions, common)
    _add_drop(actions, common)
    actions.add_parser(
        "stats",
        parents=[common],
        help="count the mails, and say whether sending is paused",
        description="Counts the queued mails (with the age of the oldest), the delayed (queued, "
        "and failed at least once), the dead (in all, and for the 50 most frequent last errors) "
        "and those sent in the last 24 hours, and says whether sending is paused.",
        epilog=_EXIT_CODES,
    )


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document: keys in snake_case, times in UTC, null for none",
    )
    common.add_argument(
        "--show-addresses",
        action="store_true",
        help="print addresses and usernames in full instead of as a***@e***.com and a***",
    )
    return common


def _add_list(actions: "Commands", common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "list",
        parents=[common],
        help="list mails, the newest first",
        description="Lists mails, the newest first; the queued and the dead ones if no state is "
        "given. `claimed` for the next try means that a deliverer is at it right now.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument(
        "--state",
        choices=("queued", "dead", "sent", "all"),
        help="only mails in this state, or all of them (default: queued and dead)",
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"at most so many, 1 to {MAXIMUM_LIMIT} (default: {DEFAULT_LIMIT})",
    )


def _add_show(actions: "Commands", common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "show",
        parents=[common],
        help="show all about one mail",
        description="Shows all about one mail: for whom it is, how it stands, when it is tried "
        "next, the last error, and until when its token works. An unknown id is refused.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("id", type=_mail_id, metavar="ID", help="the mail's id, as `list` shows it")


def _add_retry(actions: "Commands", common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "retry",
        parents=[common],
        help="try dead or waiting mails again now",
        description="Makes dead or waiting mails due now, with no attempts counted; the last "
        "error stays until the next try. Refused with a line each, while the others are done: a "
        "mail that is sent or unknown, whose verification is gone, whose token is over, or whose "
        "user is verified already. One that a deliverer is at right now is left to it.",
        epilog=_EXIT_CODES,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    # Only a positional with a default may be one of several.
    which.add_argument(
        "ids", nargs="*", default=[], type=_mail_id, metavar="ID", help="the ids of the mails"
    )
    which.add_argument("--all-dead", action="store_true", help="every dead mail")


def _add_drop(actions: "Commands", common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "drop",
        parents=[common],
        help="never send these queued mails",
        description="Marks queued mails as dead, so that they are never sent; asks nothing. "
        "Refused with a line each, while the others are done: a mail that is sent or unknown, or "
        "that a deliverer is at right now. One that is dead already stays as it is.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("ids", nargs="+", type=_mail_id, metavar="ID", help="the ids of the mails")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAXIMUM_LIMIT):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MAXIMUM_LIMIT}")
    return int(text)


def _mail_id(text: str) -> str:
    # Not more: what is no UUID is simply unknown. Refuses undecodable bytes and line ends, which
    # could be neither asked for nor told in one line.
    if not text.isprintable():
        raise argparse.ArgumentTypeError("must be printable text")
    return text
