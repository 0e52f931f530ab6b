"""How `identity outbox` shows mails, changes and figures: tables, JSON, masked addresses."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from identity.mail.administration import Changes, Figures, Obstacle, QueuedMail

MASK: Final = "***"
NONE: Final = "-"

Json = Mapping[str, object]

_LIST: Final = {
    "id": "ID",
    "state": "STATE",
    "address": "ADDRESS",
    "created_at": "CREATED",
    "attempts": "ATTEMPTS",
    "next_try_at": "NEXT TRY",
    "last_error": "LAST ERROR",
}
_SHOW: Final = {
    "id": "id",
    "user_id": "user id",
    "username": "username",
    "address": "address",
    "state": "state",
    "created_at": "created",
    "attempts": "attempts",
    "next_try_at": "next try",
    "claimed_until": "claimed until",
    "claimed_by": "claimed by",
    "sent_at": "sent",
    "dead_at": "dead",
    "last_error": "last error",
    "token_expires_at": "token's end",
}
_TOLD: Final = {
    Obstacle.UNKNOWN: "there is no such mail",
    Obstacle.SENT: "it is sent already",
    Obstacle.DEAD: "it is dead already",
    Obstacle.CLAIMED: "a deliverer is at it right now: left alone",
    Obstacle.VERIFIED: "its user is verified already",
    Obstacle.GONE: "its verification is gone",
    Obstacle.OVER: "its token is over",
    Obstacle.CHANGED: "it changed meanwhile: try again",
}


def masked_address(address: str) -> str:
    """`a***@e***.com`: enough to recognise an address that one knows, and no more."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}{MASK}@{domain[:1]}{MASK}.{domain.rpartition('.')[2]}"


def masked_username(username: str) -> str:
    return f"{username[:1]}{MASK}"


def moment(value: datetime | None) -> str | None:
    """ISO 8601 in UTC, in seconds, with Z."""
    if value is None:
        return None
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def mail_fields(mail: QueuedMail, now: datetime, *, in_full: bool) -> Json:
    """All about one mail; addresses and usernames masked unless `in_full`."""
    claimed = mail.is_claimed(now)
    return {
        "id": mail.id,
        "user_id": mail.user_id,
        "username": mail.username if in_full else masked_username(mail.username),
        "address": mail.email if in_full else masked_address(mail.email),
        "state": mail.state.value,
        "created_at": moment(mail.created_at),
        "attempts": mail.attempts,
        "next_try_at": moment(mail.next_try_at(now)),
        "claimed_until": moment(mail.due_at) if claimed else None,
        "claimed_by": mail.claimed_by if claimed else None,
        "sent_at": moment(mail.sent_at),
        "dead_at": moment(mail.dead_at),
        "last_error": mail.last_error,
        "token_expires_at": moment(mail.token_expires_at),
    }


def document(content: Json) -> str:
    return json.dumps(content, indent=2)


def mail_table(mails: Sequence[Json]) -> str:
    """A line a mail under a line of headings; `no mails` if there are none."""
    if not mails:
        return "no mails"
    rows = [list(_LIST.values())]
    for mail in mails:
        told = {**mail, "next_try_at": "claimed"} if mail["claimed_until"] else mail
        rows.append([_cell(told[key]) for key in _LIST])
    return _aligned(rows)


def mail_lines(mail: Json) -> str:
    """A line a field."""
    told = mail if mail["token_expires_at"] else {**mail, "token_expires_at": "gone"}
    return _aligned([[f"{name}:", _cell(told[key])] for key, name in _SHOW.items()])


def obstacle_line(mail_id: str, obstacle: Obstacle) -> str:
    return f"{mail_id}: {_TOLD[obstacle]}"


def changes_fields(verb: str, changes: Changes, harmless: Obstacle) -> Json:
    """`harmless` is the obstacle that leaves the mail as the operator wants it."""
    obstacles = changes.obstacles.items()
    return {
        verb: changes.changed,
        "left_alone": [_obstacle(*each) for each in obstacles if each[1] is harmless],
        "refused": [_obstacle(*each) for each in obstacles if each[1] is not harmless],
    }


def figures_fields(figures: Figures) -> Json:
    pause, oldest = figures.pause, figures.oldest_queued
    return {
        "queued": figures.queued,
        "oldest_queued_age_s": None if oldest is None else int(oldest.total_seconds()),
        "delayed": figures.delayed,
        "dead": figures.dead,
        "dead_by_last_error": [
            {"last_error": error, "count": count} for error, count in figures.dead_by_error
        ],
        "sent_last_24h": figures.sent_lately,
        "paused": None
        if pause is None
        else {
            "since": moment(pause.since),
            "reason": pause.reason,
            "next_probe_at": moment(pause.probe_at),
        },
    }


def figures_lines(figures: Figures) -> str:
    pause, oldest = figures.pause, figures.oldest_queued
    paused = "no"
    if pause is not None:
        paused = f"since {moment(pause.since)}: {pause.reason}; next probe {moment(pause.probe_at)}"
    rows = [
        ["queued:", str(figures.queued)],
        ["oldest queued:", NONE if oldest is None else f"{int(oldest.total_seconds())} s"],
        ["delayed:", str(figures.delayed)],
        ["dead:", str(figures.dead)],
        *([f"  {_cell(error)}:", str(count)] for error, count in figures.dead_by_error),
        ["sent in the last 24 h:", str(figures.sent_lately)],
        ["paused:", paused],
    ]
    return _aligned(rows)


def _obstacle(mail_id: str, obstacle: Obstacle) -> Json:
    return {"id": mail_id, "reason": obstacle.value}


def _cell(value: object) -> str:
    return NONE if value is None else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
