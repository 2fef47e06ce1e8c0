"""A stage for what becomes of SIP transactions: with our module, or with the EVAPI that Kamailio's package has, which runs the
same script; and Kamailio's own count of its transactions and dialogs."""

import re
import subprocess

from evapid import MODULE
from kamailio import Config
from process import DEADLINE_S, until
from stage import Stage

# tm's timers are longer than any test waits, but where a script calls t_set_fr; what has ended is freed soon.
TM = {"fr_timer": 120000, "fr_inv_timer": 120000, "wt_timer": 500}


class PackagedConfig(Config):
    """The same configuration for EVAPI: without the parameters that it does not have."""

    def write(self, folder, name, port):
        path = super().write(folder, name, port)
        text = path.read_text().replace(f'loadmodule "{MODULE}"', 'loadmodule "evapi.so"')
        path.write_text(re.sub(r'modparam\("evapi", "(socket|queue_size)", .*\)', "", text))
        return path


class Exchange(Stage):
    """open() starts Kamailio, with evapid if ours is the module."""

    def open(self, routes=None, ours=True, params=None, modules=(), **pieces):
        self.ctl = self.folder / "ctl.sock"
        if ours:
            self.start_evapid()
        else:
            pieces["kind"] = PackagedConfig
        self.start_kamailio(routes, attach=ours, modules=("ctl", *modules),
                            params={"tm": TM, "ctl": {"binrpc": f"unix:{self.ctl}"}, **(params or {})}, **pieces)
        return self

    def kamcmd(self, command):
        """The figures that a command of Kamailio shows: the last word of its lines, by the first."""
        ran = subprocess.run(["kamcmd", "-s", f"unix:{self.ctl}", command], capture_output=True, text=True,
                             timeout=DEADLINE_S)
        assert ran.returncode == 0 and not ran.stderr, ran.stderr
        return {name: int(number) for name, number in re.findall(r"(\w+): (\d+)", ran.stdout)}

    def no_transaction_is_left(self):
        """All that there was has ended, and its memory is free."""
        until(lambda: self.kamcmd("tm.stats")["current"] == 0, "all transactions are freed")

    def no_dialog_is_left(self):
        until(lambda: self.kamcmd("dlg.stats_active")["all"] == 0, "all dialogs have ended")
