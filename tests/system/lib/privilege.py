"""What root alone can do: a test that needs it is skipped for any other user."""

import os

import pytest


def only_root(can):
    """The mark of a test. can: what nobody else can do, "can enter a network namespace" for instance."""
    return pytest.mark.skipif(os.geteuid() != 0, reason=f"only root {can}")
