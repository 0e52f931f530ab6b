"""How the account at Amazon SES stands. Imported only where SES is chosen: boto3 is slow."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from identity.config import Settings
from identity.doctor.finding import Finding, failed, foreign, passed, warned
from identity.mail.ses import SesAccount, error_code, ses_client

READ_TIMEOUT: Final = 2.0  # seconds; at most four questions, one after the other
SCARCE: Final = 0.1  # of the quota of a day
MAXIMUM_LOOKS: Final = 4  # the address, its domain, and domains above

_ABSENT: Final = "NotFoundException"
# A role that may send and nothing else is a good one: it is no fault that it may not look.
_NOT_TOLD: Final = frozenset({"AccessDenied", "AccessDeniedException"})
_CREDENTIALS: Final = frozenset(
    {
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


def ses_findings(settings: Settings) -> Iterator[Finding]:
    try:
        client = ses_client(settings.ses_region, READ_TIMEOUT)
    except NoRegionError:
        yield failed("mail", "SES: no region", "set IDENTITY_SES_REGION")
        return
    except (BotoCoreError, ValueError) as error:
        why = f"SES: boto3's settings are unusable: {type(error).__name__}"
        yield failed("mail", why, "look at the AWS_ variables and the profile that they name")
        return
    try:
        account = client.get_account()
    except ClientError as error:
        yield _refused("mail", "ses:GetAccount", error)
        if error_code(error) in _CREDENTIALS:
            return  # all else would be refused as well
    except BotoCoreError as error:
        mend = "look at the AWS_ variables (credentials, endpoint), and for a firewall between"
        yield failed("mail", f"SES: {type(error).__name__}", mend)
        return
    else:
        yield _account(client, account)
        yield _quota(account)
    yield _sender_identity(client, settings)
    if settings.ses_configuration_set is not None:
        yield _configuration_set(client, settings.ses_configuration_set)


def _account(client: SesAccount, account: Mapping[str, Any]) -> Finding:
    where = f"SES, {client.meta.region_name}"
    status = foreign(str(account.get("EnforcementStatus", "HEALTHY")))
    if not account.get("SendingEnabled") or status == "SHUTDOWN":
        found = f"{where}: sending is off ({status})"
        return failed("mail", found, "see the account's health in the console of SES")
    if not account.get("ProductionAccessEnabled"):
        found = f"{where}: in the sandbox: only verified addresses get mails"
        return warned("mail", found, "ask for production access in the console of SES")
    if status != "HEALTHY":
        return warned(
            "mail", f"{where}: {status}", "see the account's health in the console of SES"
        )
    return passed("mail", f"{where}, sending is on, out of the sandbox")


def _quota(account: Mapping[str, Any]) -> Finding:
    quota = account.get("SendQuota", {})
    most, sent = quota.get("Max24HourSend", 0.0), quota.get("SentLast24Hours", 0.0)
    if most < 0:
        return passed("mail.quota", "unlimited")
    left = max(0.0, most - sent)
    found = f"{left:.0f} of {most:.0f} mails left in 24 h"
    mend = "ask for a higher quota in the console of SES"
    if left < 1:
        return failed("mail.quota", found, mend)
    return (
        warned("mail.quota", found, mend) if left < SCARCE * most else passed("mail.quota", found)
    )


def _sender_identity(client: SesAccount, settings: Settings) -> Finding:
    """The address is enough, and so is its domain, or one above."""
    name, address = "mail.identity", settings.email_from
    labels = address.domain.split(".")
    domains = [".".join(labels[start:]) for start in range(len(labels) - 1)] or [address.domain]
    unverified = None
    for candidate in [address.addr_spec, *domains][:MAXIMUM_LOOKS]:
        try:
            found = client.get_email_identity(EmailIdentity=candidate)
        except ClientError as error:
            if error_code(error) == _ABSENT:
                continue
            return _refused(name, "ses:GetEmailIdentity", error)
        except BotoCoreError as error:
            return failed(name, type(error).__name__, "run `identity doctor` again")
        if found.get("VerifiedForSendingStatus"):
            return passed(name, f"{candidate} is verified")
        unverified = unverified or candidate
    if unverified:
        told = f"{unverified} is not verified yet"
        return failed(name, told, "follow the mail, or set the DNS records, that SES asked for")
    told = f"neither {address.addr_spec} nor its domain is known in this region"
    return failed(name, told, "verify it in the console of SES, or mend IDENTITY_EMAIL_FROM")


def _configuration_set(client: SesAccount, configuration_set: str) -> Finding:
    name = "mail.configuration_set"
    try:
        found = client.get_configuration_set(ConfigurationSetName=configuration_set)
    except ClientError as error:
        if error_code(error) == _ABSENT:
            told = f"{configuration_set} is not known in this region"
            return failed(name, told, "make it, or mend IDENTITY_SES_CONFIGURATION_SET")
        return _refused(name, "ses:GetConfigurationSet", error)
    except BotoCoreError as error:
        return failed(name, type(error).__name__, "run `identity doctor` again")
    if not found.get("SendingOptions", {}).get("SendingEnabled", True):
        return failed(name, f"{configuration_set}: sending is off", "turn it on")
    return passed(name, configuration_set)


def _refused(name: str, action: str, error: ClientError) -> Finding:
    code = foreign(error_code(error))
    if code in _NOT_TOLD:
        return warned(name, f"not known: {action} is not allowed", f"allow {action} to look")
    return failed(name, f"SES: {code}", "look at the AWS_ variables: credentials, region, endpoint")
