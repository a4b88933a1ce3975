"""Plays random operations against a gateway and a ZooKeeper server; every answer must be the same.

    differential.py GATEWAY ZOOKEEPER OPERATIONS SEED

Two sessions at a time, of which operations, their watches' events and their deaths are compared;
and a third one, without a library, that makes containers and nodes with a time to live, watches
for good, and loses its connection now and then. What is a number of the one server's own is
translated: zxids into the operation that made them, sessions into which one it is; times only as
equal or not. The server is to look for containers to delete less often than a minute
(znode.container.checkIntervalMs), and has extended types.
"""

import random
import struct
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.protocol.states import WatchedEvent
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id, make_digest_acl

import wire

ROOT = "/diff"
NAMES = ["a", "b", "c", "d"]


class Side:
    """One of the two servers, through its sessions."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.zxids = {}
        self.sessions = {}
        self.events = [[], []]
        self.clients = [None, None]
        self.opened = 0
        for at in (0, 1):
            self.open(at)
        self.raw = wire.Session(hosts)
        self.sessions[self.raw.id] = "raw"

    def open(self, at):
        client = KazooClient(self.hosts, timeout=20.0)
        client.start(timeout=30)
        self.opened += 1
        self.sessions[client.client_id[0]] = self.opened
        self.clients[at] = client

    def close(self):
        for client in self.clients:
            client.stop()
            client.close()
        self.raw.close()

    def watcher(self, at, name):
        def fired(event: WatchedEvent):
            if event.type != "NONE":
                self.events[at].append((name, event.type, event.path))

        return fired

    def zxid(self, value, now):
        """Zxids are told apart by the operation that first showed them."""
        if value == 0:
            return 0
        return self.zxids.setdefault(value, now)

    def stat(self, stat, now):
        owner = self.sessions.get(stat.ephemeralOwner, stat.ephemeralOwner)
        return (
            self.zxid(stat.czxid, now),
            self.zxid(stat.mzxid, now),
            self.zxid(stat.pzxid, now),
            stat.version,
            stat.cversion,
            stat.aversion,
            owner,
            stat.dataLength,
            stat.numChildren,
            stat.ctime == stat.mtime,
        )

    def plain(self, value, now):
        """An answer without what is one server's own."""
        if isinstance(value, KazooException):
            return type(value).__name__
        if hasattr(value, "czxid"):
            return self.stat(value, now)
        if isinstance(value, (list, tuple)):
            items = [self.plain(item, now) for item in value]
            # Children and what a client has proved have no order in ZooKeeper.
            if isinstance(value, list) and all(isinstance(i, (str, ACL)) for i in value):
                items.sort()
            return items
        return value


def acls(dice):
    return dice.choice(
        [
            None,
            None,
            None,
            [ACL(31, Id("world", "anyone"))],
            [ACL(1, Id("world", "anyone"))],
            [ACL(dice.randrange(32), Id("world", "anyone"))],
            [make_digest_acl("u", "p", all=True)],
            [make_digest_acl("u", "p", all=True), ACL(1, Id("world", "anyone"))],
            [ACL(31, Id("auth", ""))],
            [ACL(31, Id("nobody", "x"))],
            [ACL(31, Id("digest", "x"))],
            [],
        ]
    )


def path(dice):
    depth = dice.choice([1, 1, 2, 2, 3])
    return ROOT + "".join("/" + dice.choice(NAMES) for _ in range(depth))


def version(dice):
    return dice.choice([-1, -1, -1, 0, 1, 2])


def data(dice):
    return bytes(dice.randrange(256) for _ in range(dice.choice([0, 1, 5, 100])))


def step(dice, number):
    """An operation: its words, and what does it to a side's client."""
    at = dice.randrange(2)
    kind = dice.choices(
        [
            "create", "sequence", "delete", "set", "get", "exists", "children", "get_acl",
            "set_acl", "multi", "sync", "auth", "deep", "ephemerals", "bad", "reopen",
        ],
        [16, 6, 10, 10, 10, 8, 10, 3, 2, 12, 1, 1, 3, 0, 2, 1],
    )[0]
    p, v, d, acl = path(dice), version(dice), data(dice), acls(dice)
    watch = dice.random() < 0.5
    ephemeral, stat = dice.random() < 0.25, dice.random() < 0.5
    name = "w%d" % number
    own = lambda side: side.clients[at]
    fired = lambda side: side.watcher(at, name) if watch else None
    if kind == "create":
        what = lambda s: own(s).create(p, d, acl=acl, ephemeral=ephemeral, include_data=stat)
    elif kind == "sequence":
        q = p + dice.choice(["", "-", "/"])
        what = lambda s: own(s).create(
            q, d, acl=acl, ephemeral=ephemeral, sequence=True, include_data=stat
        )
    elif kind == "delete":
        what = lambda s: own(s).delete(p, version=v)
    elif kind == "set":
        what = lambda s: own(s).set(p, d, version=v)
    elif kind == "get":
        what = lambda s: own(s).get(p, watch=fired(s))
    elif kind == "exists":
        what = lambda s: own(s).exists(p, watch=fired(s))
    elif kind == "children":
        what = lambda s: own(s).get_children(p, watch=fired(s), include_data=stat)
    elif kind == "get_acl":
        what = lambda s: own(s).get_acls(p)
    elif kind == "set_acl":
        what = lambda s: own(s).set_acls(p, acl or [ACL(31, Id("world", "anyone"))], version=v)
    elif kind == "sync":
        what = lambda s: own(s).sync(p)
    elif kind == "auth":
        word = dice.choice(["u:p", "u:q", "v:p"])
        what = lambda s: own(s).add_auth("digest", word)
    elif kind == "deep":
        what = lambda s: own(s).get_children(ROOT)
    elif kind == "bad":
        bad = dice.choice(["/", "/zookeeper", ROOT + "/\x7f", ROOT + "/nope/x", "/zookeeper/config"])
        act = dice.choice(["create", "delete", "set", "get", "exists", "children"])
        what = lambda s: {
            "create": lambda c: c.create(bad, d),
            "delete": lambda c: c.delete(bad, version=v) if bad != "/zookeeper/config" else None,
            "set": lambda c: c.set(bad, d) if bad.startswith(ROOT) else None,
            "get": lambda c: c.get(bad)[0] if bad.startswith(ROOT) else None,
            "exists": lambda c: c.exists(bad) if bad.startswith(ROOT) else None,
            "children": lambda c: c.get_children(bad) if bad.startswith(ROOT) else None,
        }[act](own(s))
    elif kind == "reopen":

        def what(s):
            own(s).stop()
            own(s).close()
            s.open(at)

    else:
        parts = []
        for _ in range(dice.randrange(1, 5)):
            part = dice.choice(["create", "create", "delete", "set", "check"])
            parts.append((part, path(dice), data(dice), version(dice), dice.random() < 0.2,
                          dice.random() < 0.3, acls(dice) if dice.random() < 0.3 else None))

        def what(s):
            t = own(s).transaction()
            for part, q, e, w, eph, seq, acl in parts:
                if part == "create":
                    t.create(q, e, acl=acl, ephemeral=eph, sequence=seq)
                elif part == "delete":
                    t.delete(q, version=w)
                elif part == "set":
                    t.set_data(q, e, version=w)
                else:
                    t.check(q, version=w)
            return t.commit()

        return "%s %s %s" % (at, kind, parts), at, what
    return "%s %s %s v%s %r acl=%s watch=%s eph=%s" % (
        at, kind, p, v, d[:8], acl, watch, ephemeral), at, what


def raw_step(dice, number):
    """An operation of the session without a library."""
    kind = dice.choices(
        ["container", "ttl", "watch", "unwatch", "read", "delete", "multi", "away"],
        [5, 5, 6, 2, 4, 2, 2, 2],
    )[0]
    p, q, d, acl = path(dice), path(dice), data(dice), acls(dice)
    acl = OPEN_ACL_UNSAFE if acl is None else acl
    sequential, mode = dice.random() < 0.3, dice.randrange(2)
    flags, ttl = 4, None
    # A request whose type and flags do not fit makes ZooKeeper 3.8 end.
    if kind == "ttl" or kind == "multi" and dice.random() < 0.7:
        flags = 6 if sequential else 5
        ttl = dice.choice([1_000_000, 1_000_000, 5_000_000, 0, -1, -2, 1 << 40, 1 << 62])
    if dice.random() < 0.05:
        flags = dice.choice([-1, 7, 9])
    made = lambda answer: answer if isinstance(answer, Exception) else (
        named(answer), wire.stat(answer))
    bare = lambda answer: answer if isinstance(answer, Exception) else "done"

    def watch(raw):
        # In ZooKeeper 3.8, of several ways to watch one path the last takes the others' place.
        return None if p in raw.watched[1 - mode] else bare(raw.add_watch(p, mode))

    def multi(raw):
        kinds = wire.CREATE_CONTAINER if ttl is None else wire.CREATE_TTL
        body = b""
        for kind, part in [(kinds, wire.create(p, d, acl, flags, ttl)),
                           (wire.CREATE, wire.create(q, d, OPEN_ACL_UNSAFE, 0))]:
            body += struct.pack(">ibi", kind, 0, -1) + part
        answer = raw.call(wire.MULTI, body + struct.pack(">ibi", -1, 1, -1))
        return answer if isinstance(answer, Exception) else parts(answer)

    def away(raw, side):
        raw.leave()
        # Nobody is told of what happens meanwhile.
        done = (play(side, lambda s: s.clients[0].set(p, d), number),
                play(side, lambda s: s.clients[0].delete(q), number))
        return done, bare(raw.come_back())

    what = {
        "container": lambda raw, s: made(
            raw.call(wire.CREATE_CONTAINER, wire.create(p, d, acl, flags))),
        "ttl": lambda raw, s: made(raw.call(
            wire.CREATE_TTL, wire.create(p, d, acl, flags, ttl))),
        "watch": lambda raw, s: watch(raw),
        "unwatch": lambda raw, s: bare(raw.remove_watches(p)),
        "read": lambda raw, s: last_stat(raw.call(wire.EXISTS, wire.text(p) + b"\0")),
        "delete": lambda raw, s: bare(raw.call(wire.DELETE, wire.path_int(p, -1))),
        "multi": lambda raw, s: multi(raw),
        "away": lambda raw, s: away(raw, s),
    }[kind]
    words = "raw %s %s %s flags=%s ttl=%s mode=%s acl=%s" % (kind, p, q, flags, ttl, mode, acl)
    return words, None, lambda side: what(side.raw, side)


def named(answer):
    """The path that a response begins with."""
    length = struct.unpack_from(">i", answer)[0]
    return answer[4:4 + length].decode()


def last_stat(answer):
    return answer if isinstance(answer, Exception) else wire.stat(answer)


def parts(answer):
    """The parts of a multi's response: paths and stats, or errors."""
    found, at = [], 0
    while True:
        kind, done, error = struct.unpack_from(">ibi", answer, at)
        at += 9
        if done:
            return found
        if kind == -1:
            found.append(struct.unpack_from(">i", answer, at)[0])
            at += 4
            continue
        path = named(answer[at:])
        at += 4 + len(path.encode())
        found.append(path)
        if kind != wire.CREATE:
            found.append(wire.stat(answer[:at + wire.stat_struct.size]))
            at += wire.stat_struct.size


def play(side, what, now):
    try:
        return side.plain(what(side), now)
    except KazooException as error:
        return type(error).__name__
    except (TypeError, ValueError) as error:
        return "refused by the client: %s" % type(error).__name__


def settled(side, ended):
    """Waits until every event of what was done so far has come, and hands them over."""
    for client in side.clients:
        client.sync("/")
        # What the client calls, it calls in order: this comes after the events.
        called = threading.Event()
        client.handler.dispatch_callback(
            type("Callback", (), {"type": "watch", "func": called.set, "args": ()})
        )
        called.wait(30)
    own = side.raw.take()
    # Several watches of one path that one event fires are the client's to order; the ephemeral
    # nodes of a session that ends are deleted in whatever order.
    events, side.events = side.events, [[], []]
    told = [sorted(own) if ended else own]
    for own in events:
        groups = []
        for name, kind, where in own:
            if not groups or groups[-1][0] != (kind, where):
                groups.append(((kind, where), []))
            groups[-1][1].append(name)
        own = [(event, sorted(names)) for event, names in groups]
        told.append(sorted(own) if ended else own)
    return told


def session(gateway, real, count, seed):
    """Plays `count` operations; returns the differences."""
    dice = random.Random(seed)
    global ROOT
    ROOT = "/diff-%d-%d" % (seed, int(time.time() * 1000))
    sides = [Side(gateway), Side(real)]
    for side in sides:
        side.clients[0].create(ROOT, b"")
    history = []
    try:
        for number in range(1, count + 1):
            words, _, what = (raw_step if dice.random() < 0.2 else step)(dice, number)
            history.append(words)
            answers = [play(side, what, number) for side in sides]
            if answers[0] != answers[1]:
                return history, "answers differ:\n  gateway:   %r\n  zookeeper: %r" % tuple(answers)
            if number % 5 == 0 or number == count:
                ended = any(" reopen " in words for words in history[-5:])
                events = [settled(side, ended) for side in sides]
                if events[0] != events[1]:
                    return history, "events differ:\n  gateway:   %r\n  zookeeper: %r" % tuple(
                        events)
        return history, None
    finally:
        for side in sides:
            side.close()


def main():
    gateway, real, total, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    played, failures = 0, 0
    while played < total:
        history, difference = session(gateway, real, 500, seed)
        played += len(history)
        if difference:
            failures += 1
            print("seed %d, operation %d" % (seed, len(history)))
            for line in history[-12:]:
                print("   ", line)
            print(difference)
            if failures >= 3:
                break
        seed += 1
    print("%d random operations, %d differences" % (played, failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
