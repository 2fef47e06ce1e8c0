"""More connections to the control socket than there may be: who makes way, and who does not."""

import os
import pwd
from contextlib import ExitStack

from access import NOBODY
from control import Control
from privilege import only_root

MOST = 32  # CONTROL_CONNECTIONS


def test_silent_connections_do_not_push_out_one_that_is_used(stage):
    """Many come at once and say nothing, while one is idle between two of its requests: evapictl top, for instance."""
    stage.start_evapid()
    with Control(stage.evapid.control_socket) as used, ExitStack() as crowd:
        assert used.ask(command="stats")["totals"]
        silent = [crowd.enter_context(Control(stage.evapid.control_socket)) for _ in range(2 * MOST)]
        assert silent[-1].ask(command="stats")["totals"]
        assert used.ask(command="stats")["totals"]
        assert silent[0].line() is None


def test_of_those_that_are_used_the_idlest_makes_way(stage):
    stage.start_evapid()
    with ExitStack() as crowd:
        used = [crowd.enter_context(Control(stage.evapid.control_socket)) for _ in range(MOST)]
        for control in [*used, used[0]]:
            assert control.ask(command="stats")["totals"]
        assert crowd.enter_context(Control(stage.evapid.control_socket)).ask(command="stats")["totals"]
        assert used[1].line() is None
        assert used[0].ask(command="stats")["totals"]


def as_user(name, connect):
    """What connect() returns, called as that user."""
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        return connect()
    finally:
        os.seteuid(0)


@only_root("can connect as another user")
def test_a_user_who_holds_all_connections_keeps_out_nobody_else(stage):
    """All are at work: none of their answers is read. And those of another user stay as they are."""
    stage.start_evapid(control_access={"mode": "0666"})
    stage.folder.chmod(0o711)
    nobody = NOBODY.pw_uid
    with ExitStack() as crowd:
        looks_on = [crowd.enter_context(Control(stage.evapid.control_socket)) for _ in range(8)]
        for control in looks_on:
            assert "tail" in control.ask(command="tail")
        others = [as_user("nobody", lambda: crowd.enter_context(Control(stage.evapid.control_socket))) for _ in range(MOST - 8)]
        for other in others:
            assert other.ask(command="stats")["totals"]
            other.send(b'{"command": "stats"}\n' * 600)
        own = crowd.enter_context(Control(stage.evapid.control_socket))
        assert own.ask(command="stats")["totals"]
        assert stage.evapid.lines(rf"closed one of user {nobody}, who has the most")
        assert not stage.evapid.lines("closed one of user 0")
        for control in looks_on:
            control.end()
            assert control.rest() == []
