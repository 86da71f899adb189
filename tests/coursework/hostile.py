"""Submissions of attackers: what each tries, what it loses, and what its row must say.

Each is the perfect submission of `concepts` with something in it. The class must go on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import broken
import planted

Notebook = dict[str, Any]
EVERYTHING = -1.0  # in `lost`: all points

# The pipes to the grader, found as an attacker finds them; `raw` sends what no honest program would.
PIPES = """
import fcntl, json, os, signal, sys, time
from grading.box import wire
where = {n: f"/proc/self/fd/{n}" for n in range(3, 30)}
pipes = [n for n, path in where.items() if os.path.exists(path) and os.readlink(path).startswith("pipe")]
mode = lambda n: fcntl.fcntl(n, fcntl.F_GETFL) & 3
outbox = [n for n in pipes if mode(n) == os.O_WRONLY][0]
inbox = [n for n in pipes if mode(n) == os.O_RDONLY][0]


def raw(meta, arrays=(), tail=b"", header=None):
    h = header or json.dumps({"meta": meta, "arrays": list(arrays)}).encode()
    b = len(h).to_bytes(8, "little") + h + tail
    wire.write(outbox, len(b).to_bytes(8, "little") + b)


"""
CHANNEL = {
    "a number type that numpy chokes on": 'raw({}, [["n", "(2,", []]])',
    "objects instead of numbers": 'raw({}, [["n", "|O", [1]]], b"x" * 8)',
    "a flood of finished cells": (
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        'for i in range(20000):\n    raw({"event": "cell", "cell": 0, "text": ""})\ntime.sleep(10**6)'
    ),
    "a negative shape": 'raw({}, [["n", "<f8", [-1]]], b"x" * 80)',
    "an endless shape": 'raw({}, [["n", "<f8", [2**62, 2**62, 0]]])',
    "a shape of texts": 'raw({}, [["n", "<f8", ["1"]]], b"x" * 8)',
    "a million arrays": 'raw({}, [["n", "<f8", [0]]] * 1000000)',
    "deep JSON": 'raw({}, header=b"[" * 300000)',
    "a header of lists": 'raw({}, header=b"[" + b"[]," * 2000000 + b"[]]")',
    "a frame of the largest length": 'os.write(outbox, b"\\xff" * 8)',
    "random bytes": "os.write(outbox, bytes(range(256)) * 4)",
    "all cells claimed as done": (
        'for i in range(60):\n    raw({"event": "begin", "cell": i})\n    raw({"event": "cell", "cell": i})\n'
        'raw({"event": "ran"})'
    ),
    "an event of another type": 'raw({"event": ["begin"], "cell": {}})',
    "a number where a table belongs": "raw(7)",
}


# On a busy machine the time may be up before the memory is: "was stopped" is said of both.
@dataclass(frozen=True)
class Hostile:
    """One hostile submission.

    Attributes:
        edit: What it changes in the perfect one.
        lost: Points that it loses of all, or `EVERYTHING`.
        reason: What its row must say; empty where nothing has to be said.
        slow: Whether it uses up more than a cell's time.
    """

    edit: Callable[[Notebook], Notebook]
    lost: float = 0.0
    reason: str = ""
    slow: bool = False


def cell(code: str, **more: Any) -> Hostile:
    """Return a submission with a cell of the student's own."""
    return Hostile(broken.own_cell(code), **more)


def answer(code: str, lost: float, item: str = "bound", **more: Any) -> Hostile:
    """Return a submission with another cell for a task."""
    return Hostile(broken.task(item, code), lost, **more)


BOUND = """
bound_says = {{"sum": "says", "alike": "silent", "joint": "silent", "harm": "silent"}}
def dann_step(w, g_task, g_domain, rate, strength):
    return {0}
def right_hand_side(source_error, domain_classifier_error, joint_error):
    return {1}
"""
STEP, SIDE = (
    "w - rate * (g_task - strength * g_domain)",
    "source_error + 1 - 2 * domain_classifier_error + joint_error",
)
WRITE = """
import os
for i in range(100):
    with open(f"{0}/file{{i}}", "wb") as file:
        file.write(b"x" * (50 << 20))
"""
MEMORY_FILES = """
import os
kept = []
for i in range(60):
    kept.append(os.memfd_create(str(i)))
    os.write(kept[-1], b"x" * (90 << 20))
"""
CHILD = """
import subprocess, sys
code = "hog = [bytearray(50 << 20) for _ in range(20)]\\nimport time; time.sleep(5)"
subprocess.run([sys.executable, "-c", code])
"""
FAMILY = """
import subprocess, sys, time
code = "hog = bytearray(1 << 29)\\nhog[::4096] = b'x' * (1 << 17)\\nimport time; time.sleep(60)"
children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(8)]
time.sleep(60)
"""
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "{0}"])
    os._exit(0)
"""
DAEMON_SECONDS = "98765"
PICTURES = """
import base64
from IPython.display import Image, display
png = b"\\x89PNG\\r\\n\\x1a\\n" + b"x" * (1 << 20)
for _ in range(50):
    display(Image(data=png, format="png"))
"""
# What it looks for is written so that it does not find itself.
SEARCH = r"""
import gc, inspect, os, re
wanted = re.compile(rb"def [c]heck_\w+\(given|a secret of the [t]ests|### BEGIN [S]OLUTION|def [j]udge")
seen = [str(frame.frame.f_locals) + str(frame.frame.f_globals) for frame in inspect.stack()]
for thing in gc.get_objects():
    if isinstance(thing, (dict, list, tuple)):
        seen += [text for text in (thing.values() if isinstance(thing, dict) else thing) if type(text) is str]
found = {text for one in seen for text in wanted.findall(one.encode("utf-8", "replace"))}
for number in [n for n in os.listdir("/proc") if n.isdigit()]:
    for name in ("environ", "cmdline", "maps", "mem"):
        try:
            held = open(f"/proc/{number}/{name}", "rb", 0)
            lines = open(f"/proc/{number}/maps") if name == "mem" else ["0-fffff"]
            spans = [line.split()[0] for line in lines]
        except OSError:
            continue
        for start, stop in [[int(n, 16) for n in span.split("-")] for span in spans]:
            try:
                held.seek(start)
                found |= set(wanted.findall(held.read(min(stop - start, 1 << 27)) or b""))
            except (OSError, ValueError, OverflowError):
                continue
print("FOUND", sorted(found), os.environ.get("COURSEWORK_SECRET"))
"""
SYSTEM_V = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(400):
    one = libc.shmget(0, 64 << 20, 0o1600)
    place = libc.shmat(one, None, 0)
    ctypes.memset(place, 1, 64 << 20)
    libc.shmdt(ctypes.c_void_p(place))
"""
HOLDS = """
if os.fork() == 0:
    os.setsid()
    time.sleep(10**6)
os._exit(0)
"""
STRANGE = """
print("\\x1b[2J\\x1b]0;mine\\x07 \\ud800 \\x00 \\u202e <script>alert(1)</script> ]]> </pre>")
class Evil(Exception):
    def __str__(self):
        raise RuntimeError
raise type("<b>Evil</b>", (Evil,), {})()
"""
HOSTILE: dict[str, Hostile] = {
    **{name: cell(PIPES + code, reason="grader's channel") for name, code in CHANNEL.items()},
    "a frame that never ends": cell(
        PIPES
        + "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        + 'os.write(outbox, (1 << 20).to_bytes(8, "little") + b"x")\ntime.sleep(10**6)',
        reason="ran too long",
        slow=True,
    ),
    "reads what is meant for the runner": cell(PIPES + "wire.read(inbox)", reason="ran too long"),
    "closes the channel": cell(PIPES + "os.close(outbox)", reason="its process ended"),
    "does not listen": cell(PIPES + "os.close(inbox)", reason="its process ended"),
    "replaces the probes": cell(
        "import sys\nfrom grading.box import wire\nmain = sys.modules['__main__']\n"
        "import grading.box.runner as again\nimport gc\n"
        "for f in gc.get_objects():\n"
        "    if isinstance(f, dict) and f.get('run_probe') is not None and 'run_cell' in f:\n"
        "        f['run_probe'] = lambda *a: wire.pack({'event': 'found', 'texts': {}})",
        lost=EVERYTHING,
    ),
    "answers that are too large": answer(BOUND.format("np.zeros(1 << 24)", SIDE), 1),
    "answers that broadcast": answer(BOUND.format(f"({STEP}) * np.ones((100000, 1))", SIDE), 1),
    "empty answers": answer(BOUND.format("np.zeros((0, 1))", "np.zeros((0, 1))"), 2),
    "infinite answers": answer(BOUND.format("w * np.inf", "np.nan"), 2),
    "a deep answer": answer(
        "x = {}\nfor _ in range(10**5):\n    x = {'a': x}\nroles = parts = x", 4, item="roles"
    ),
    "an answer of a million keys": answer(
        "roles = parts = {str(i): i for i in range(10**6)}", 4, item="roles"
    ),
    "an answer that is equal to all": answer(
        "class S(str):\n    __eq__ = lambda a, b: True\n    __hash__ = str.__hash__\n"
        "roles = parts = {k: S('x') for k in ('source task', 'source domain')}",
        4,
        item="roles",
    ),
    "an answer that kills": answer(
        "import os\nclass R:\n    def keys(self):\n        os._exit(1)\nroles = R()\nparts = {}",
        4,
        item="roles",
        reason="its process ended",
    ),
    "a full folder": cell(WRITE.format(".")),
    "a full folder of temporary files": cell(WRITE.format("/tmp")),
    "full shared memory": cell(WRITE.format("/dev/shm")),
    "a full root": cell(WRITE.format("/")),
    "files in memory without a name": cell(MEMORY_FILES, reason="was stopped"),
    "many empty files": cell("for i in range(10**9):\n    open(f'f{i}', 'w').close()", reason="ran too long"),
    "a large child": cell(CHILD),
    "a large family": cell(FAMILY, reason="memory"),
    "a fork bomb": cell("import os\nwhile True:\n    os.fork()", reason="and was stopped"),
    "many threads": cell(
        "import threading, time\nfor _ in range(20000):\n"
        "    threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        reason="its process ended",  # in a later cell, which finds no room for threads of its own
    ),
    "a child that stays": cell(DAEMON.format(DAEMON_SECONDS)),
    "no ear for signals": cell(
        "import signal, time\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\ntime.sleep(10**6)",
        reason="ran too long",
        slow=True,
    ),
    "an alarm of its own": cell(
        "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nwhile True:\n    pass",
        reason="ran too long",
        slow=True,
    ),
    "a fault in memory": cell("import ctypes\nctypes.string_at(0)", reason="its process ended"),
    "endless recursion": cell("import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()", reason=""),
    "a thread that ends all": cell(
        "import os, threading\nthreading.Timer(0.2, os._exit, (3,)).start()\nimport time\ntime.sleep(1)",
        reason="its process ended",
    ),
    "a mount": cell(
        "import subprocess\nline = 'unshare -Urm mount -t tmpfs x /mnt; mount -o remount,rw /'\n"
        "print(subprocess.run(line, shell=True, capture_output=True, text=True))"
    ),
    "a page of pictures": cell(PICTURES),
    "an error of megabytes": cell("raise ValueError('x' * 10**8)"),
    "strange texts": cell(STRANGE),
    "exit functions": cell("import atexit, os\natexit.register(os._exit, 3)"),
    "its parent": cell("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
    "all processes": cell("import os, signal\nos.kill(-1, signal.SIGKILL)"),
    "stops itself": cell(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", reason="ran too long", slow=True
    ),
    "limits of its own": cell(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True:\n    pass",
        reason="its process ended",
    ),
    "a flood of printed bytes": cell("import os\nfor _ in range(2000):\n    os.write(1, b'x' * (1 << 20))"),
    "other arithmetic": cell(
        "import numpy as np\nnp.asarray = np.array = lambda *a, **k: np.ones(3)", lost=17
    ),
    "other JSON": cell("import json\njson.dumps = lambda *a, **k: '{}'", reason="grader's channel"),
    "other built-ins": cell(
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda x: 0",
        reason="its process ended",
    ),
    "no modules": cell("import sys\nsys.modules.clear()", lost=31),
    "a debugger": cell("import sys, time\nsys.settrace(lambda *a: time.sleep(9))\n(lambda: 1)()", reason=""),
    "a profiler that raises": cell("import sys\nsys.setprofile(lambda *a: 1 / 0)"),
    "an output that is closed": cell("import sys\nsys.stdout.close()\nsys.stderr = None\nprint(1)"),
    "a text that is none": cell(
        "import sys\nclass S(str):\n    __getitem__ = lambda *a: 7\nsys.stdout.write(S('x'))",
        reason="its process ended",
    ),
    "an error that never ends": cell(
        "class Slow(Exception):\n    def __str__(self):\n        while True:\n            pass\nraise Slow",
        reason="ran too long",
        slow=True,
    ),
    "a pattern that never ends": cell(
        "import re\nre.match('(a+)+$', 'a' * 50 + 'b')", reason="ran too long", slow=True
    ),
    "a child that holds the channel": cell(PIPES + HOLDS, reason="its process ended"),
    "a file of 10 GB with a hole": cell("open('hole', 'wb').truncate(10 << 30)"),
    "a pipe to open": cell("import os\nos.mkfifo('pipe')\nopen('pipe')", reason="ran too long"),
    "looks for the key": cell(SEARCH),
    "System V memory": cell(SYSTEM_V, reason="was stopped"),
    "an endless generator": answer(BOUND.format("(w for _ in iter(int, 1))", SIDE), 1),
    "an endless list": answer(BOUND.format("w", "[0.0] * 10**9"), 3),
    "complex answers": answer(BOUND.format(f"({STEP}) + 0j", f"complex({SIDE})"), 2),
    "answers of type object": answer(BOUND.format(f"np.array(list({STEP}), object)", SIDE), 1),
    "masked answers": answer(BOUND.format(f"np.ma.array({STEP}, mask=True)", SIDE), 0),
    "a lazy array that is another each time": answer(
        BOUND.format("Lazy()", SIDE)
        + "class Lazy:\n    def __array__(self, *a, **k):\n        return np.random.random(3)",
        1,
    ),
    "a lazy array that kills": answer(
        BOUND.format("Lazy()", SIDE)
        + "class Lazy:\n    def __array__(self, *a, **k):\n        __import__('os')._exit(1)",
        3,
        reason="its process ended",
    ),
    "an array of its own kind": answer(
        BOUND.format(f"({STEP}).view(Own)", SIDE)
        + "class Own(np.ndarray):\n    __eq__ = __array_ufunc__ = lambda *a, **k: True\n"
        "    tobytes = astype = lambda *a, **k: b''",
        0,
    ),
    "a sleep in every answer": answer(BOUND.format("__import__('time').sleep(10**6)", SIDE), 3),
    "a broken shell": cell(
        "from IPython import get_ipython\nget_ipython().compile = None",
        reason="its process ended",
    ),
}
ALWAYS = (
    "a number type that numpy chokes on",
    "a flood of finished cells",
    "answers that broadcast",
    "looks for the key",
    "other JSON",
    "full shared memory",
    "a page of pictures",
    "files in memory without a name",
)


def plant(source: Notebook, released: Notebook, names: list[str]) -> dict[str, Notebook]:
    """Return the notebooks of these submissions."""
    perfect = planted.solved(source, released)
    import copy

    return {name: HOSTILE[name].edit(copy.deepcopy(perfect)) for name in names}
