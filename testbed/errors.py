"""Every error the testbed raises on purpose.

    TestbedError                     exit status
    ├── InputError                   2   the user's words are wrong
    │   ├── DocumentError                a topology document, with all its findings
    │   ├── LabExistsError               the name is taken by another document
    │   └── UnknownLabError              no such lab, machine or network interface
    ├── MachineError                 3   this computer lacks a right, a tool or a feature
    ├── LabError                     4   a step on the kernel or on a process failed
    │   └── DeadlineError                a condition did not come true in time
    └── VerdictError                 1   a check ran to its end and did not pass

An error names the thing, what is wrong with it, and (``fix``) what to do next.
"""

from __future__ import annotations

__all__ = [
    "DeadlineError",
    "DocumentError",
    "InputError",
    "LabError",
    "LabExistsError",
    "MachineError",
    "TestbedError",
    "UnknownLabError",
    "VerdictError",
]


class TestbedError(Exception):
    """Root of all errors raised on purpose.

    Args:
        message: What is wrong, naming the object.
        fix: What the user can do about it; printed on a line of its own.
    """

    __test__ = False  # the name starts like a test class; pytest must not collect it
    exit_status = 4

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class InputError(TestbedError):
    """What the user typed or wrote cannot be used."""

    exit_status = 2


class DocumentError(InputError):
    """A topology document has mistakes; ``findings`` holds all of them."""

    def __init__(self, message: str, findings: tuple[object, ...] = (), *, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.findings = findings


class LabExistsError(InputError):
    """A lab of this name is up, made from another document."""


class UnknownLabError(InputError):
    """No lab, machine or network interface of this name."""


class MachineError(TestbedError):
    """This computer lacks a right, a tool or a kernel feature."""

    exit_status = 3


class LabError(TestbedError):
    """A step on the kernel or on a process failed."""


class DeadlineError(LabError):
    """A condition did not come true in time; the message holds the last state seen."""


class VerdictError(TestbedError):
    """A check ran to its end and did not pass."""

    exit_status = 1
