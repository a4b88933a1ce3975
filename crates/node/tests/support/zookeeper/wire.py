"""A session of ZooKeeper's protocol without a library: for what kazoo does not speak.

One request at a time. Events are kept, in order, until they are taken.
"""

import socket
import struct

from kazoo.exceptions import EXCEPTIONS
from kazoo.protocol.serialization import stat_struct
from kazoo.protocol.states import ZnodeStat

CREATE, DELETE, EXISTS, GET, SET, SYNC, MULTI = 1, 2, 3, 4, 5, 9, 14
CREATE_CONTAINER, CREATE_TTL, REMOVE_WATCHES, SET_WATCHES2, ADD_WATCH = 19, 21, 18, 105, 106
EVENTS = {1: "CREATED", 2: "DELETED", 3: "CHANGED", 4: "CHILD"}
TIMEOUT_MS = 20_000


def text(value):
    value = value.encode()
    return struct.pack(">i", len(value)) + value


def buffer(value):
    return struct.pack(">i", len(value)) + value


def create(path, data, acl, flags, ttl=None):
    """The body of a request to create; with a time to live, if there is one."""
    body = text(path) + buffer(data) + struct.pack(">i", len(acl))
    for entry in acl:
        body += struct.pack(">i", entry.perms) + text(entry.id.scheme) + text(entry.id.id)
    body += struct.pack(">i", flags)
    return body if ttl is None else body + struct.pack(">q", ttl)


def path_int(path, number):
    return text(path) + struct.pack(">i", number)


def stat(body):
    """The stat with which a response ends."""
    return ZnodeStat._make(stat_struct.unpack(body[-stat_struct.size:]))


class Session:
    def __init__(self, hosts):
        host, port = hosts.split(",")[0].split(":")
        self.address = (host, int(port))
        self.id, self.password, self.zxid, self.xid = 0, b"\0" * 16, 0, 0
        self.watched = {0: set(), 1: set()}
        self.events = []
        self.connect()

    def connect(self):
        self.socket = socket.create_connection(self.address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = struct.pack(">iqiq", 0, self.zxid, TIMEOUT_MS, self.id)
        self.send(greeting + buffer(self.password) + b"\0")
        answer = self.frame()
        _, granted, self.id = struct.unpack_from(">iiq", answer)
        assert granted > 0, "the session is over"
        self.password = answer[20:36]

    def leave(self):
        """Loses the connection; the session stays."""
        self.socket.close()

    def come_back(self):
        """Takes the session up again, and sets its watches anew."""
        self.connect()
        lists = [[], [], [], sorted(self.watched[0]), sorted(self.watched[1])]
        body = struct.pack(">q", self.zxid)
        for paths in lists:
            body += struct.pack(">i", len(paths)) + b"".join(text(path) for path in paths)
        return self.call(SET_WATCHES2, body, xid=-8)

    def close(self):
        self.call(-11, b"")
        self.socket.close()

    def send(self, body):
        self.socket.sendall(struct.pack(">i", len(body)) + body)

    def exactly(self, count):
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            assert more, "the connection was closed"
            got += more
        return got

    def frame(self):
        return self.exactly(struct.unpack(">i", self.exactly(4))[0])

    def call(self, kind, body, xid=None):
        """The body of the response, or the exception that its error stands for."""
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.send(struct.pack(">ii", xid, kind) + body)
        while True:
            frame = self.frame()
            got, zxid, error = struct.unpack_from(">iqi", frame)
            if got == -1:
                event, _, length = struct.unpack_from(">iii", frame, 16)
                self.events.append((EVENTS[event], frame[28:28 + length].decode()))
                continue
            assert got == xid, "a response to something else"
            self.zxid = zxid if zxid > 0 else self.zxid
            return EXCEPTIONS[error]() if error else frame[16:]

    def add_watch(self, path, mode):
        answer = self.call(ADD_WATCH, path_int(path, mode))
        if not isinstance(answer, Exception):
            self.watched[mode].add(path)
        return answer

    def remove_watches(self, path):
        answer = self.call(REMOVE_WATCHES, path_int(path, 3))
        if not isinstance(answer, Exception):
            for paths in self.watched.values():
                paths.discard(path)
        return answer

    def take(self):
        """The events of everything that was done so far."""
        self.call(SYNC, text("/"))
        events, self.events = self.events, []
        return events
