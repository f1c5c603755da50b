"""The lesson on blocking I/O as a play: each claim is shown, and measured.

    python3 scripts/lesson.py           all acts, in less than a minute
    python3 scripts/lesson.py 5 pool    act 5, then the act of that name
"""

import sys

if __name__ == "__main__":
    try:
        from lab.program import run as run_program
    except ImportError:
        sys.exit("no lab here: drop -I and PYTHONSAFEPATH, or take the .pyz")
    sys.exit(run_program("lesson"))

import contextlib
import os
import signal
import socket
import threading
from time import monotonic, sleep
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from lab.arguments import above_zero, parser
from lab.clients import PATIENCE, Clients
from lab.report import show_time
from lab.screen import BOLD, GREEN, RED, Screen
from lab.server import Failure, Server, ask_models, field
from lab.stage import (Play, Scene, Verdict, had_threads, legend, outcomes,
                       served_by)

from echoserver import Connection, ConnectionPool
from echoserver.console import allow_descriptors

__all__ = ["ACTS", "main"]

HELP = """\
Who waits for whom, in each model of a server?

An act says a claim of the lesson, starts a real server, and lets some clients
speak.  Time goes to the right.  The verdict is taken from what was measured.
The exit status is 1 if a claim was not shown, 130 after Ctrl-C."""

BUSY = 300          # clients that make a server of threads look dead


# The lesson's own server, which acts 4 and 9 try.

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


def own_server(play: Play) -> Server:
    play.screen.say("$ python3 scripts/lesson.py --serve")
    return Server("", program="import sys; sys.path.insert(0, 'scripts'); "
                  "import lesson; lesson.serve(int(sys.argv[1]))")


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
    wait = max(two.waits, default=0.0)
    return (shown and two.copying < wait,
            "%s; the recv() of client 2 waited %s for data (phase one), and "
            "took %s to copy them (phase two): too little for a picture, one "
            "part in %s of the wait" % (
                words, show_time(wait), show_time(two.copying),
                "{:,.0f}".format(wait / max(two.copying, 1e-9))))


def a_thread_each(play: Play) -> Verdict:
    scene = visit(play, "threads")
    one, two, three = scene.clients
    shown, words = outcomes(False, (two, one), (three, one))
    # one for each client, and the one that accepts
    return shown and had_threads(scene, 4), words + served_by(scene)


def a_process_each(play: Play) -> Verdict:
    """Kill the process of a client, and let all clients ask once more."""
    with play.scene(3, "processes") as scene:
        for number, client in enumerate(scene.clients):
            scene.at(0.2 * number, client.say)
            scene.at(1.4, client.say)
        scene.at(1, lambda: os.kill(scene.server.family()[1], signal.SIGKILL))
        scene.run(1.8)
    cut = [each.name for each in scene.clients if each.cut]
    served = [each.name for each in scene.clients if len(each.waits) == 2]
    return len(cut) == 1 and len(served) == 2, (
        "one of %d processes was killed; cut: %s; served before and after: %s"
        % (scene.processes, " and ".join(cut), " and ".join(served)))


class Seen(NamedTuple):

    """What a server did for busy clients, and for newcomers among them."""

    first: float        # seconds: the newcomers' longest for a first reply
    longest: float      # and the busy ones', for any
    memory: float       # bytes for each busy client
    waiting: str        # ">" if a newcomer still waited at the end


def newcomers(play: Play, server: Server) -> Seen:
    """Let hundreds of busy clients come, and three newcomers among them."""
    memory, open_before = server.memory() or 0, server.descriptors() or 0
    scene = Scene(play.screen, server, 3, max(play.stretch, 1), "newcomer")
    with Clients(server.address, "-n", BUSY, "-c", 0, "-i", 0, "-q",
                 "--json") as busy:
        busy.go()
        for number, client in enumerate(scene.clients):
            for turn in range(4):
                scene.at(0.2 + 0.2 * number + 0.3 * turn, client.say)
        scene.run(1.8, overtime=0)
        inside = max((server.descriptors() or 0) - open_before,
                     len(server.family()) - 1, 1)
        memory = (server.memory() or 0) - memory
        longest = busy.stop()["wait_max_us"] or 0
    return Seen(max(client.all_waits()[0] for client in scene.clients),
                longest / 1e6, memory / inside, ">" * any(
                    not client.waits for client in scene.clients))


def death(play: Play) -> Verdict:
    """Let newcomers come among hundreds of busy clients of each server."""
    play.screen.say("%d clients ask again at each reply; three newcomers come. "
                    "First the lesson's own server: simple threads." % BUSY)
    seen: Dict[str, Seen] = {}
    with own_server(play) as server:
        seen["lesson's"] = newcomers(play, server)
    for model in "threads", "processes", "pool", "events":
        if model in play.models:
            with play.server(model, "-q") as server:
                seen[model] = newcomers(play, server)
    play.screen.draw([
        "%-10s%24s%22s%22s" % ("", "first reply: newcomers", "any: busy ones",
                               "memory of 10,000"), *(
            "%-10s%24s%22s%19s MB" % (
                name, each.waiting + show_time(each.first), show_time(
                    each.longest), "{:,.0f}".format(each.memory / 100))
            for name, each in seen.items())])
    least = seen["events"]
    return (all(seen[name].longest > 3 * least.longest
                for name in ("lesson's", "processes") if name in seen)
            and seen["threads"].memory > 3 * least.memory,
            "somebody waited %s; with events nobody more than %s; this host "
            "has %s MB of memory" % (", ".join(
                "%s with %s" % (show_time(max(each.first, each.longest)), name)
                for name, each in seen.items() if name != "events"),
                show_time(max(least.first, least.longest)), "{:,.0f}".format(
                    field("/proc/meminfo", "MemTotal:") / 1e6)))


def crowd(play: Play, model: str, blocked: bool) -> Verdict:
    """Let two clients ask and be silent, and two others ask meanwhile."""
    with play.scene(4, model, "--pool-size", "2") as scene:
        one, two, three, four = scene.clients
        for start, client in zip((0, 0.2, 0.5, 0.8), scene.clients):
            scene.at(start, client.say)
        scene.at(1.8, one.leave)
        scene.at(2.4, four.leave)
        scene.run(2.6)
    silent = outcomes(False, (one, two), (two, one))[0]
    shown, words = outcomes(blocked, (three, one), (four, two))
    return (shown and silent and had_threads(scene, 3),
            "with 2 workers and 2 silent clients, %s%s"
            % (words, served_by(scene)))


def a_connection_pool(play: Play) -> Verdict:
    """Exchange messages in both ways, in turn, so that both have the same
    host."""
    made: List[List[Connection]] = [[], []]
    seconds = 0.15 * play.stretch
    with play.server("threads", "-q") as server, ConnectionPool(
            server.address, timeout=PATIENCE) as pool:
        for turn in range(10):
            end = monotonic() + seconds
            while monotonic() < end:
                with (pool.connection() if turn % 2 else Connection(
                        server.address, PATIENCE)) as connection:
                    connection.echo(b"hello")
                made[turn % 2].append(connection)
    dials = len(made[0]), len(set(made[1]))
    play.screen.draw(["%-10s%14s%14s" % ("", "exchanges/s", "dials")] + [
        "%-10s%14s%14s" % (name, "{:,.0f}".format(len(each) / (5 * seconds)),
                           "{:,}".format(count))
        for name, each, count in zip(("dialled", "pool"), made, dials)])
    return len(made[1]) > len(made[0]) and dials[1] < dials[0], (
        "with the pool, {:.1f} times as many exchanges a second; dials: {:,} "
        "instead of {:,}".format(len(made[1]) / len(made[0]), *dials[::-1]))


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
            "%s%s; with a delay the longest wait was %s with threads, and %s "
            "with events" % (words, served_by(scene), show_time(threaded),
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
    with own_server(play) as server:
        with socket.create_connection(server.address, PATIENCE) as conn:
            conn.send(b"a" * 3000)
            first = conn.recv(1024)
            conn.send(b"hello")
            second = conn.recv(5).decode()
        for _ in range(5):      # some interrupts meet no send()
            own = flood(server)
            if own[1] < own[0]:
                break
    with play.server("threads") as server:
        ours = flood(server)
    play.screen.draw(
        ["sent:         3,000 a     after a reply: hello",
         "should come:  3,000 A     then: HELLO",
         "came:         {:,} A     then: {}".format(len(first), second)])
    play.screen.say("Next, a client sends and reads nothing, so that the "
                    "server waits in send(). The server is suspended and "
                    "continued, as by Ctrl-Z and fg. Then the client reads:")
    play.screen.draw(["%-10s%14s%14s%14s" % ("", "sent", "came back", "lost")]
                     + ["%-10s%14s%14s%14s" % (name, *map(
                         "{:,}".format, (sent, came, sent - came)))
                        for name, (sent, came) in (("lesson's", own),
                                                   ("threads", ours))])
    return (second != "HELLO" and own[1] < own[0] and ours[1] == ours[0],
            "recv(1024) returned {:,} of 3,000 bytes; the lesson's server "
            "lost {:,} bytes, --model threads {:,}".format(
                len(first), own[0] - own[1], ours[0] - ours[1]))


class Act(NamedTuple):

    """A claim of the lesson, what shows it, and what is needed for that."""

    name: str
    claim: str
    perform: Callable[[Play], Verdict]
    models: Sequence[str]
    descriptors: int = 64
    proc: bool = False      # whether it needs /proc


ACTS = [
    Act("blocking", "recv() blocks in two phases: it waits for data, and it "
        "copies them. A server that waits for one client serves nobody else.",
        one_at_a_time, ["blocking"]),
    Act("threads", "With a thread for each client, nobody waits for a client "
        "that is silent.", a_thread_each, ["threads"]),
    Act("processes", "With a process for each client it is the same, and the "
        "end of a process is the end of one connection only.",
        a_process_each, ["processes"], proc=True),
    Act("many", "When hundreds of clients come and stay busy, a thread or a "
        "process for each costs memory, and simple servers seem dead: some "
        "wait for seconds. Not with one thread, nor with newcomers first.",
        death, ["threads", "events"], 3 * BUSY, proc=True),
    Act("pinned", "A pool of workers bounds what threads cost, and has a "
        "ceiling: when each worker has a client, the next waits until one "
        "leaves.", lambda play: crowd(play, "pinned", True), ["pinned"]),
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


def attempt(act: Act, play: Play) -> Tuple[str, str]:
    """Play an act, if that is possible; return how it ended, and why."""
    if not set(act.models) <= set(play.models):
        return LEFT_OUT, "this system has no model " + act.models[-1]
    if allow_descriptors(act.descriptors) < act.descriptors:
        return LEFT_OUT, "%d descriptors are needed" % act.descriptors
    if act.proc and not os.path.isdir("/proc/self/task"):
        return LEFT_OUT, "this system has no /proc that tells of processes"
    try:
        shown, words = act.perform(play)
        return SHOWN if shown else NOT_SHOWN, words
    except BrokenPipeError:     # nobody reads what is printed
        raise
    except (Failure, OSError) as error:
        return NOT_SHOWN, str(error)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    names = {name: act for number, act in enumerate(ACTS, 1)
             for name in (str(number), act.name)}
    arguments = parser(HELP)
    add = arguments.add_argument
    add("acts", metavar="ACT", nargs="*", help="1 to %d, or: %s (default: all)"
        % (len(ACTS), ", ".join(act.name for act in ACTS)))
    add("--stretch", type=above_zero(100), default=1.0, metavar="FACTOR",
        help="multiply all times by this: 3 on a slow host (default "
        "%(default)g)")
    add("--serve", type=above_zero(65535, int), nargs="?", const=0,
        metavar="PORT", help="be the lesson's own server, which acts 4 and 9 "
        "try; by default on a free port")
    args = arguments.parse_args(argv)
    for name in args.acts:
        if name not in names:
            arguments.error("there is no act %r" % name)
    if args.serve is not None:
        serve(args.serve)
    return run([names[name] for name in args.acts] or ACTS, Screen(),
               args.stretch)


def run(acts: Sequence[Act], screen: Screen, stretch: float) -> int:
    """Play the acts; return the exit status."""
    if screen.live:
        signal.signal(signal.SIGCONT, screen.begin)
    play = Play(screen, list(ask_models()), stretch)
    screen.say(legend(screen))
    ends: Dict[str, int] = dict.fromkeys(COLOURS, 0)
    for act in acts:
        print()
        screen.say(act.claim, "%d %s:" % (ACTS.index(act) + 1, act.name), BOLD)
        how, words = attempt(act, play)
        screen.say(words, how + ":", COLOURS[how])
        ends[how] += 1
    print()
    screen.say(", ".join("%d %s" % (count, how.lower())
                         for how, count in ends.items()))
    return 1 if ends[NOT_SHOWN] else 0
