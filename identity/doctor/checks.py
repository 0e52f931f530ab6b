"""The list of all checks."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from identity.config import Settings
from identity.doctor.database import database_findings
from identity.doctor.examination import Check
from identity.doctor.keys import key_findings
from identity.doctor.limits import limit_findings
from identity.doctor.listen import listen_findings
from identity.doctor.machine import machine_findings
from identity.doctor.mail import mail_findings
from identity.doctor.tls import tls_findings


def checks(
    settings: Settings, files: Mapping[str, Path], now: Callable[[], datetime]
) -> Sequence[Check]:
    """All that `serve` would need with these settings.

    `files`: those that settings were read from, by the variable that names each.
    """
    return [
        Check("database", lambda: database_findings(settings, now)),
        Check("keys", lambda: key_findings(settings, files)),
        Check("mail", lambda: mail_findings(settings)),
        Check("tls", lambda: tls_findings(settings, now)),
        Check("limits", lambda: limit_findings(settings)),
        Check("listen", lambda: listen_findings(settings)),
        Check("machine", lambda: machine_findings(settings)),
    ]
