"""A program that does not want to die: run as a real process by the tests of the shim.

usage: stubborn.py FOLDER SHAPE   -- every process writes a file named after its pid, then sleeps
"""

import os
import signal
import sys
import time
from pathlib import Path


def announce(folder):
    (Path(folder) / str(os.getpid())).touch()


def rest():
    while True:
        time.sleep(60)


def escape(folder):
    """Double fork, own session, no pipes, no mercy: what a daemon or an agent's tool does."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            for fd in (0, 1, 2):
                os.close(fd)
            announce(folder)
            rest()
        os._exit(0)


def breed(folder):
    """Fork again whenever a child is killed."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        announce(folder)
        while True:
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                announce(folder)
                rest()
            os.waitpid(child, 0)


def main(folder, shape):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(3):
        escape(folder)
    if shape == "breeds":
        breed(folder)
    if shape == "stopped":
        announce(folder)
        os.kill(os.getpid(), signal.SIGSTOP)
    if shape == "leaves":
        while len(os.listdir(folder)) < 3:
            time.sleep(0.01)
        sys.exit(0)
    announce(folder)
    rest()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
