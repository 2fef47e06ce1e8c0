"""What goes on in a thread while a test does something else."""

import threading


class Background(threading.Thread):
    """A context: the thread runs as long as the context lasts. run() is to return soon after over is set."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
