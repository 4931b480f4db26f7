"""Whether this process may do what a verb on a running lab needs."""

from __future__ import annotations

from testbed.errors import MachineError

__all__ = ["need_rights"]


def need_rights() -> None:
    """Check the capabilities before anything is looked at, so that every verb says the same.

    Raises:
        MachineError: Some are missing.
    """
    from testbed.doctor.attempts import rights

    try:
        rights()
    except MachineError as error:
        message = f"labs need root's rights: {error.message}"
        raise MachineError(message, fix="run the command with sudo; all about this machine: testbed doctor") from error
