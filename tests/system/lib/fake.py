"""What is no evapid, but answers evapictl as if it were one."""

import socket
import threading

from evapid import evapictl
from process import DEADLINE_S


def ask_a_fake(folder, serve, *words):
    """Run evapictl, whose connection serve gets. Returns what evapictl has printed."""
    path = folder / "fake.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        listening.settimeout(DEADLINE_S)

        def answer():
            with listening.accept()[0] as connection:
                connection.settimeout(DEADLINE_S)
                serve(connection)
        fake = threading.Thread(target=answer)
        fake.start()
        ran = evapictl(path, *words)
        fake.join()
    return ran
