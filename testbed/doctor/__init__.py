"""What this computer can do for the testbed, found by trying, and how to get what it lacks."""

from testbed.doctor.examination import examine
from testbed.doctor.report import Capability, Report

__all__ = ["Capability", "Report", "examine"]
