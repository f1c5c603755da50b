"""The lesson on blocking I/O as a play: each claim is shown, and measured.

    python3 scripts/lesson.py           all acts, in less than a minute
    python3 scripts/lesson.py 5 pool    act 5, then the act of that name

An act says a claim of the lesson, starts a real server, and lets some clients
speak.  Each client has a row, and time goes to the right.  The verdict is
taken from what was measured.

The command line of the server is shown.  Repeat it by hand, and talk to the
server from other terminals: python3 -m echoserver.client.  (In the play, each
server has a free port instead of 8080.)

The exit status is 0 if each claim was shown, 1 if one was not, 2 for wrong
arguments, 130 after Ctrl-C.  An act that this host cannot play is left out,
and the play says so.
"""

import sys

if __name__ == "__main__":
    from lab.program import run as run_program
    sys.exit(run_program("lesson"))

import argparse
import contextlib
import errno
import os
import signal
import socket
import threading
from time import monotonic, sleep
from typing import (Callable, Dict, List, NamedTuple, Optional, Sequence,
                    Set, Tuple)

from lab.arguments import above_zero
from lab.cost import MANY, measure
from lab.play import (Play, Verdict, had_threads, names, outcome, outcomes,
                      served_by)
from lab.report import counted
from lab.scene import Scene, legend, show_time
from lab.screen import BOLD, GREEN, RED, REPLY, Screen
from lab.server import (ROOT, Failure, Server, ask_models, field,
                        raise_descriptor_limit)
from lab.tally import PATIENCE

sys.path.insert(1, ROOT)
from echoserver import Connection, ConnectionPool

__all__ = ["ACTS", "main"]

NARROWEST = 40      # columns that rows and tables need
SPARE = 64          # descriptors for other things than connections


# The lesson's own server, which act 9 tries.

def answer(conn: socket.socket) -> None:
    with conn:
        while True:
            data = conn.recv(1024)
            if not data:
                break
            conn.send(data.upper())


def serve(port: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(5)
        print("The lesson's server, on %s port %d ..." % server.getsockname(),
              flush=True)
        while True:
            conn, _ = server.accept()
            threading.Thread(target=answer, args=(conn,), daemon=True).start()


OWN_SERVER = """\
import sys
sys.path.insert(0, "scripts")
import lesson
lesson.serve(int(sys.argv[1]))
"""


# The acts.

def visit(play: Play, model: str) -> Scene:
    """Let three clients ask; the first two are silent then, and leave."""
    with play.scene(3, model) as scene:
        one, two, three = scene.clients
        scene.at(0, one.say)
        scene.at(0.3, two.say)
        scene.at(0.6, three.say)
        scene.at(1.6, one.leave)
        scene.at(2.4, two.leave)
        scene.run(2.8)
    return scene


def one_at_a_time(play: Play) -> Verdict:
    one, two, three = visit(play, "blocking").clients
    shown, words = outcomes(True, (two, one), (three, two))
    return (shown and two.copying < max(two.waits, default=0.0),
            "%s; the recv() of client 2 had data after %s, and copied them in "
            "%s" % (words, show_time(max(two.waits, default=0.0)),
                    show_time(two.copying)))


def a_thread_each(play: Play) -> Verdict:
    scene = visit(play, "threads")
    one, two, three = scene.clients
    shown, words = outcomes(False, (two, one), (three, one))
    # one for each client, and the one that accepts
    return shown and had_threads(scene, 4), words + served_by(scene)


def a_process_each(play: Play) -> Verdict:
    """Kill the process of a client, and let all clients ask once more."""
    def kill() -> None:
        for child in scene.server.family()[1:2]:
            os.kill(child, signal.SIGKILL)

    with play.scene(3, "processes") as scene:
        for number, client in enumerate(scene.clients):
            scene.at(0.2 * number, client.say)
            scene.at(1.4, client.say)
        scene.at(1, kill)
        scene.run(1.8)
        cut = [client for client in scene.clients if client.cut]
        served = [client for client in scene.clients if len(client.waits) == 2]
    return len(cut) == 1 and len(served) == 2, (
        "one of %d processes was killed; cut: %s; served before and after: %s"
        % (scene.processes, names(cut), names(served)))


def many(play: Play) -> Verdict:
    """Compare the models by memory and processor time.

    The p99 is shown, and decides nothing: on a busy host it says more about
    the host than about the server.
    """
    costs = measure(play, [model for model in ("threads", "processes",
                                               "events")
                           if model in play.models])
    play.screen.say(
        "%d clients are silent, then all of them ask. Memory: of the server, "
        "for each client, in KiB (1,024 bytes). CPU/reply: processor time of "
        "the server. p99: of 100 replies 99 came within this time." % MANY)
    play.screen.draw(["%-10s%10s%10s%9s" % ("", "memory", "CPU/reply", "p99")]
                     + ["%-10s%s" % pair for pair in costs.items()])
    least = costs["events"]
    return (all(cost.memory > 3 * least.memory and cost.cpu > least.cpu
                for cost in costs.values() if cost is not least),
            "10,000 silent clients would need: %s, of the %.2f GB here; the "
            "processor time of a reply: %s" % (
                ", ".join("%s %.2f GB" % (model, cost.memory * 1e-5)
                          for model, cost in costs.items()),
                field("/proc/meminfo", "MemTotal:") * 1e-9,
                ", ".join("%s %.1f us" % (model, cost.cpu * 1e6)
                          for model, cost in costs.items())))


def crowd(play: Play, model: str, blocked: bool) -> Verdict:
    """Let two clients ask and be silent, and two others ask meanwhile."""
    with play.scene(4, model, "--pool-size", "2") as scene:
        one, two, three, four = scene.clients
        for start, client in zip((0, 0.2, 0.5, 0.8), scene.clients):
            scene.at(start, client.say)
        scene.at(1.8, one.leave)
        scene.at(2.4, four.leave)
        scene.run(2.6)
    silent = [outcome(*pair)[0] for pair in ((one, two), (two, one))]
    shown, words = outcomes(blocked, (three, one), (four, two))
    workers = (counted(scene.threads - 1, "worker") + " and "
               if scene.threads else "")
    return (shown and not any(silent) and had_threads(scene, 3),
            "with %s%s, %s%s" % (
                workers, counted(silent.count(False), "silent client"), words,
                served_by(scene)))


def a_connection_pool(play: Play) -> Verdict:
    """Exchange messages in both ways, in turn, so that both have the same
    host."""
    counts = [0, 0]
    lent: Set[Connection] = set()

    def dial() -> None:
        with Connection(server.address, PATIENCE) as connection:
            connection.echo(b"hello")

    def borrow() -> None:
        with pool.connection() as connection:
            connection.echo(b"hello")
            lent.add(connection)

    seconds = 0.2 * play.stretch
    with play.server("threads", "-q") as server, ConnectionPool(
            server.address, timeout=PATIENCE) as pool:
        for turn in range(10):
            end = monotonic() + seconds
            while monotonic() < end:
                (dial, borrow)[turn % 2]()
                counts[turn % 2] += 1
    dials = counts[0], len(lent)
    bar = play.screen.width - 30
    play.screen.draw(["%-10s%*s%12s%8s" % ("", bar, "", "exchanges/s",
                                           "dials")] + [
        "%-10s%s%12s%8s" % (name, play.screen.cells(
            (REPLY * (bar * count // max(counts))).ljust(bar)),
            "{:,.0f}".format(count / (5 * seconds)), "{:,}".format(dialled))
        for name, count, dialled in zip(("dialled", "pool"), counts, dials)])
    return counts[1] > counts[0] and dials[1] < dials[0], (
        "with the pool, {:.1f} times as many exchanges a second; dials: {:,} "
        "instead of {:,}".format(counts[1] / counts[0], *reversed(dials)))


def slow(play: Play, model: str) -> float:
    """Let three clients ask a slow server at the same time; return the
    longest of their waits."""
    with play.scene(3, model, "--delay", "%g" % (0.5 * play.stretch)) as scene:
        for client in scene.clients:
            scene.at(0, client.say)
        scene.run(1.8)
    return max(max(client.waits, default=0.0) for client in scene.clients)


def one_for_all(play: Play) -> Verdict:
    scene = visit(play, "events")
    one, two, three = scene.clients
    shown, words = outcomes(False, (two, one), (three, one))
    threaded, looped = slow(play, "threads"), slow(play, "events")
    return (shown and had_threads(scene, 1) and looped > 1.5 * threaded > 0,
            "%s%s; with a delay before each reply the longest wait was %s "
            "with threads, and %s with events" % (
                words, served_by(scene), show_time(threaded),
                show_time(looped)))


def flood(server: Server) -> Tuple[int, int]:
    """Send until the server waits in send(), since nothing is read.  Suspend
    the server and continue it, which interrupts send().  Then read.

    Return how many bytes were sent, and how many came back.
    """
    sent = came = 0
    with socket.socket() as conn:
        # Segments as on an Ethernet.  Those of the loopback interface are so
        # large that the lesson's pieces often end where a segment does.
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        conn.settimeout(0.1)
        conn.connect(server.address)
        with contextlib.suppress(socket.timeout):
            while True:
                sent += conn.send(b"x" * 65536)
        server.send_signal(signal.SIGSTOP)
        try:
            sleep(0.05)
        finally:
            server.send_signal(signal.SIGCONT)
        conn.shutdown(socket.SHUT_WR)
        conn.settimeout(PATIENCE)
        for data in iter(lambda: conn.recv(65536), b""):
            came += len(data)
    return sent, came


def parts(play: Play) -> Verdict:
    play.screen.say("$ python3 scripts/lesson.py --serve")
    play.screen.say("A client sends 3,000 times the letter a, and hello after "
                    "the first reply. The server reads at most 1,024 bytes at "
                    "a time.")
    with Server("", program=OWN_SERVER) as server:
        with socket.create_connection(server.address, PATIENCE) as conn:
            conn.send(b"a" * 3000)
            first = conn.recv(1024)
            conn.send(b"hello")
            second = conn.recv(1024)
        for _ in range(5):      # some interrupts meet no send()
            own = flood(server)
            if own[1] < own[0]:
                break
    with play.server("threads") as server:
        ours = flood(server)
    play.screen.say("A client sends and reads nothing, so that the server "
                    "waits in send(). The server is suspended and continued, "
                    "as by Ctrl-Z and fg. Then the client reads:")
    play.screen.draw(["%-10s%10s%10s%8s" % ("", "sent", "came back", "lost")]
                     + ["%-10s%10s%10s%8s" % (name, *map(
                         "{:,}".format, (sent, came, sent - came)))
                        for name, (sent, came) in (("lesson's", own),
                                                   ("threads", ours))])
    return (len(first) < 3000 and second != b"HELLO" and own[1] < own[0]
            and ours[1] == ours[0],
            "recv(1024) returned {:,} of 3,000 bytes, and {!r}... as the "
            "reply to hello; the lesson's server lost {:,} bytes, --model "
            "threads lost {:,}".format(len(first), second[:5].decode(),
                                       own[0] - own[1], ours[0] - ours[1]))


class Act(NamedTuple):

    """A claim of the lesson, what shows it, and what is needed for that."""

    name: str
    claim: str
    perform: Callable[[Play], Verdict]
    models: Sequence[str]
    descriptors: int = 16
    proc: bool = False


ACTS = [
    Act("blocking", "recv() blocks in two phases: it waits for data, and it "
        "copies them. A server that waits for one client serves nobody else.",
        one_at_a_time, ["blocking"]),
    Act("threads", "With a thread for each client, nobody waits for a client "
        "that is silent.", a_thread_each, ["threads"]),
    Act("processes", "With a process for each client it is the same, and the "
        "end of a process is the end of one connection only.",
        a_process_each, ["processes"], proc=True),
    Act("many", "A thread or a process for each client costs memory while the "
        "client is silent, and processor time when it asks. One thread that "
        "serves all costs less of both.",
        many, ["threads", "events"], 2 * MANY + SPARE, proc=True),
    Act("pinned", "A pool of workers bounds what threads cost, and has a "
        "ceiling: when each worker has a client, the next one waits until one "
        "leaves.",
        lambda play: crowd(play, "pinned", True), ["pinned"]),
    Act("pool", "A worker of a pool need not stay with a client that is "
        "silent. Then two workers serve more than two clients.",
        lambda play: crowd(play, "pool", False), ["pool"]),
    Act("connections", "A client that keeps its connections in a pool need "
        "not dial for each message.", a_connection_pool, ["threads"]),
    Act("events", "With calls that do not block, one thread serves everybody. "
        "But whatever blocks this thread delays everybody.",
        one_for_all, ["threads", "events"]),
    Act("parts", "recv() returns what is there, and send() may take a part "
        "only. The lesson's own code overlooks both.", parts, ["threads"]),
]


# The program.

# How an act ends, and in what colour that is said.
SHOWN, NOT_SHOWN, LEFT_OUT = "Shown", "Not shown on this host", "Left out"
COLOURS = {SHOWN: GREEN, NOT_SHOWN: RED, LEFT_OUT: RED}


def hindrance(act: Act, models: Sequence[str], descriptors: float) -> str:
    """Return why this host cannot play an act; "" if nothing is known."""
    for model in act.models:
        if model not in models:
            return ("this system has no model %s%s" % (model, ", since it has "
                    "no fork()" if model == "processes" else ""))
    if act.descriptors > descriptors:
        return ("%d descriptors are needed, %g allowed (ulimit -Hn)"
                % (act.descriptors, descriptors))
    if act.proc and not os.path.isdir("/proc/self/task"):
        return "this system has no /proc that tells what a process needs"
    return ""


def attempt(act: Act, play: Play, descriptors: float) -> Tuple[str, str]:
    """Play an act, if that is possible; return how it ended, and why."""
    reason = hindrance(act, play.models, descriptors)
    if reason:
        return LEFT_OUT, reason
    try:
        shown, words = act.perform(play)
        return SHOWN if shown else NOT_SHOWN, words
    except BrokenPipeError:     # nobody reads what is printed
        raise
    except (Failure, OSError) as error:
        few = getattr(error, "errno", 0) in (errno.EMFILE, errno.ENFILE)
        return LEFT_OUT if few else NOT_SHOWN, str(error)


def named_act(text: str) -> Act:
    """An argparse type: an act by its number or its name."""
    for number, found in enumerate(ACTS, 1):
        if text in (str(number), found.name):
            return found
    raise argparse.ArgumentTypeError("there is no act %r; there are 1 to %d: "
                                     "%s" % (text, len(ACTS), ", ".join(
                                         found.name for found in ACTS)))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("acts", metavar="ACT", nargs="*", type=named_act,
        help="its number or its name, see --list (default: all)")
    add("--list", action="store_true", help="list the acts and their claims")
    add("--plain", action="store_true", help="no colours, and draw each "
        "picture once, as in a pipe")
    add("--stretch", type=above_zero(100), default=1.0, metavar="FACTOR",
        help="multiply all times by this: 3 on a slow host (default "
        "%(default)g)")
    add("--serve", type=int, nargs="?", const=0, metavar="PORT",
        help="be the lesson's own server, which act 9 tries; by default on a "
        "free port")
    return parser


def announce(screen: Screen, act: Act) -> None:
    print()
    screen.say(act.claim, "%d %s:" % (ACTS.index(act) + 1, act.name), BOLD)


def run(args: argparse.Namespace, screen: Screen) -> int:
    """Play the acts; return the exit status."""
    if screen.live:
        signal.signal(signal.SIGCONT, screen.begin)
    descriptors = raise_descriptor_limit()
    play = Play(screen, list(ask_models()), args.stretch)
    screen.say(legend(screen))
    ends: Dict[str, int] = dict.fromkeys(COLOURS, 0)
    for act in args.acts or ACTS:
        announce(screen, act)
        how, words = attempt(act, play, descriptors)
        screen.say(words, how + ":", COLOURS[how])
        ends[how] += 1
    print()
    screen.say(", ".join("%d %s" % (count, how.lower())
                         for how, count in ends.items()))
    return 1 if ends[NOT_SHOWN] else 0


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    screen = Screen(args.plain)
    if args.serve is not None:
        if args.acts:
            parser.error("--serve plays no act")
        try:
            serve(args.serve)
        except OverflowError as error:
            parser.error(str(error))
    if args.list:
        for act in args.acts or ACTS:
            announce(screen, act)
        return 0
    if screen.width < NARROWEST:
        parser.error("the terminal has %d columns, and %d are needed"
                     % (screen.width, NARROWEST))
    return run(args, screen)
