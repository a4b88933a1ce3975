"""Kazoo's recipes and transactions against a gateway, with their results checked.

    recipes.py GATEWAYS SECONDS

Each recipe is played over and over by several clients until its share of the time is up. Whoever
started this may kill replicas meanwhile: nothing here may notice more than that it takes longer.
"""

import sys
import threading
import time
import uuid

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NodeExistsError
from kazoo.protocol.states import KazooState
from kazoo.recipe.barrier import Barrier, DoubleBarrier
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.lease import NonBlockingLease
from kazoo.retry import KazooRetry

HOSTS = sys.argv[1]
SECONDS = float(sys.argv[2])
PATIENCE = 60


def client():
    retry = KazooRetry(max_tries=20, max_delay=1.0)
    zk = KazooClient(HOSTS, timeout=10.0, connection_retry=retry, command_retry=retry)
    zk.lost = []
    zk.add_listener(lambda state: zk.lost.append(state) if state == KazooState.LOST else None)
    zk.start(timeout=PATIENCE)
    return zk


def done(clients):
    for zk in clients:
        assert not zk.lost, "a session was lost though its client lives"
        zk.stop()
        zk.close()


def together(functions):
    """Runs them at the same time; fails when one fails or hangs."""
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # noqa: B902
            failures.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 3)
        assert not thread.is_alive(), "somebody hangs"
    assert not failures, failures


def eventually(what, check):
    end = time.time() + PATIENCE
    while not check():
        assert time.time() < end, "never: " + what
        time.sleep(0.01)


def lock(root, until):
    """At most one holds it; what is counted under it is counted exactly."""
    clients = [client() for _ in range(3)]
    clients[0].create(root + "/count", b"0", makepath=True)
    held, turns = [0], [0, 0, 0]

    def work(at):
        zk = clients[at]
        mutex = zk.Lock(root + "/lock", "worker-%d" % at)
        while time.time() < until:
            with mutex:
                held[0] += 1
                assert held[0] == 1, "two hold the lock"
                count = int(zk.get(root + "/count")[0])
                zk.set(root + "/count", b"%d" % (count + 1))
                held[0] -= 1
            turns[at] += 1

    together([lambda at=at: work(at) for at in range(3)])
    assert int(clients[0].get(root + "/count")[0]) == sum(turns)
    done(clients)
    return sum(turns)


def election(root, until):
    """One leads at a time, and everybody does in the end."""
    clients = [client() for _ in range(3)]
    leads, led = [0], [0, 0, 0]

    def lead(at):
        leads[0] += 1
        assert leads[0] == 1, "two lead"
        led[at] += 1
        leads[0] -= 1

    def work(at):
        vote = clients[at].Election(root, "candidate-%d" % at)
        while time.time() < until:
            vote.run(lead, at)

    together([lambda at=at: work(at) for at in range(3)])
    assert all(led), led
    done(clients)
    return sum(led)


def barrier(root, until):
    """Nobody passes while it is up; a double barrier is entered and left together."""
    clients = [client() for _ in range(3)]
    rounds = 0
    while time.time() < until or rounds == 0:
        path = "%s/b%d" % (root, rounds)
        gate, passed = Barrier(clients[0], path + "/gate"), []
        gate.create()

        def wait(at):
            assert Barrier(clients[at], path + "/gate").wait(PATIENCE)
            passed.append(at)

        def lift():
            time.sleep(0.02)
            assert not passed, "somebody passed"
            gate.remove()

        together([lambda: wait(1), lambda: wait(2), lift])
        inside = [0]

        def both(at):
            double = DoubleBarrier(clients[at], path + "/double", 3, "member-%d" % at)
            inside[0] += 1
            double.enter()
            assert inside[0] == 3, "entered before all had come"
            double.leave()

        together([lambda at=at: both(at) for at in range(3)])
        rounds += 1
    done(clients)
    return rounds


def queue(root, until):
    """Everything that is put is taken once, in order of its priority when nobody else takes."""
    clients = [client() for _ in range(3)]
    put, taken, producing = [], [], [True]

    def produce():
        own = clients[0].Queue(root + "/plain")
        while time.time() < until:
            word = uuid.uuid4().hex.encode()
            own.put(word)
            put.append(word)
        producing[0] = False

    def consume(at):
        own = clients[at].LockingQueue(root + "/locking")
        plain = clients[at].Queue(root + "/plain")
        while producing[0] or len(plain):
            word = plain.get()
            if word is None:
                time.sleep(0.001)
                continue
            taken.append(word)
            own.put(word)

    together([produce, lambda: consume(1)])
    assert taken == put, "a queue of one consumer keeps the order"
    own = clients[2].LockingQueue(root + "/locking")
    for _ in put:
        assert own.get(timeout=PATIENCE) is not None
        assert own.consume()
    assert len(own) == 0
    done(clients)
    return len(put)


def counter(root, until):
    """What is added by all together is there in the end."""
    clients = [client() for _ in range(3)]
    added = [0, 0, 0]

    def work(at):
        own = clients[at].Counter(root + "/counter")
        while time.time() < until:
            own += 2
            own -= 1
            added[at] += 1

    together([lambda at=at: work(at) for at in range(3)])
    assert clients[0].Counter(root + "/counter").value == sum(added)
    done(clients)
    return sum(added)


def party(root, until):
    """Who is there is seen by all, and who has gone is not."""
    clients = [client() for _ in range(3)]
    rounds = 0
    while time.time() < until or rounds == 0:
        parties = [zk.Party(root, "guest-%d" % at) for at, zk in enumerate(clients)]
        for own in parties:
            own.join()
        assert sorted(parties[0]) == ["guest-0", "guest-1", "guest-2"]
        parties[1].leave()
        assert sorted(parties[2]) == ["guest-0", "guest-2"]
        parties[0].leave()
        parties[2].leave()
        assert len(parties[0]) == 0
        rounds += 1
    done(clients)
    return rounds


def lease(root, until):
    """While one has it, the other does not get it."""
    import datetime

    clients = [client() for _ in range(2)]
    rounds = 0
    while time.time() < until or rounds == 0:
        path = "%s/l%d" % (root, rounds)
        hour = datetime.timedelta(hours=1)
        assert NonBlockingLease(clients[0], path, hour, "first")
        assert not NonBlockingLease(clients[1], path, hour, "second")
        rounds += 1
    done(clients)
    return rounds


def data_watch(root, until):
    """Whoever watches sees the last value in the end, and never an older one after a newer one."""
    clients = [client() for _ in range(2)]
    clients[0].create(root + "/data", b"0", makepath=True)
    seen = []
    clients[1].DataWatch(root + "/data", lambda data, stat: seen.append((stat.version, data)))
    wrote = 0
    while time.time() < until or wrote == 0:
        wrote += 1
        clients[0].set(root + "/data", b"%d" % wrote)
    eventually("the last value is seen", lambda: seen[-1] == (wrote, b"%d" % wrote))
    assert seen == sorted(set(seen)), "seen twice or out of order"
    assert all(int(data) == version for version, data in seen)
    done(clients)
    return wrote


def children_watch(root, until):
    """Whoever watches sees the last set of children in the end."""
    clients = [client() for _ in range(2)]
    clients[0].ensure_path(root)
    seen = []
    clients[1].ChildrenWatch(root, lambda children: seen.append(sorted(children)))
    made = 0
    while time.time() < until or made == 0:
        made += 1
        clients[0].create("%s/c%06d" % (root, made), b"", ephemeral=made % 2 == 0)
        if made % 3 == 0:
            clients[0].delete("%s/c%06d" % (root, made - 1))
    wanted = sorted(clients[0].get_children(root))
    eventually("the last children are seen", lambda: seen[-1] == wanted)
    done(clients)
    return made


def tree_cache(root, until):
    """A cache becomes what it is a cache of."""
    clients = [client() for _ in range(2)]
    clients[0].ensure_path(root)
    cache, faults = TreeCache(clients[1], root), []
    ready = threading.Event()
    cache.listen(lambda event: ready.set() if event.event_type == TreeEvent.INITIALIZED else None)
    cache.listen_fault(faults.append)
    cache.start()
    assert ready.wait(PATIENCE)
    turns = 0
    while time.time() < until or turns == 0:
        at = "%s/%d" % (root, turns % 7)
        clients[0].ensure_path(at + "/x")
        clients[0].set(at + "/x", b"%d" % turns)
        if turns % 5 == 4:
            clients[0].delete(at, recursive=True)
        turns += 1

    def same():
        names = sorted(clients[0].get_children(root))
        if sorted(cache.get_children(root) or []) != names:
            return False
        wanted = {n: clients[0].get("%s/%s/x" % (root, n))[0] for n in names}
        own = {n: cache.get_data("%s/%s/x" % (root, n)) for n in names}
        return all(own[n] is not None and own[n].data == wanted[n] for n in names)

    eventually("the cache is what the tree is", same)
    assert not faults, faults
    cache.close()
    done(clients)
    return turns


def transactions(root, until):
    """Money moves between accounts; none is made or lost."""
    clients = [client() for _ in range(3)]
    names = ["%s/account-%d" % (root, at) for at in range(4)]
    clients[0].ensure_path(root)
    for name in names:
        clients[0].create(name, b"100")
    moved = [0, 0, 0]

    def work(at):
        zk, turn = clients[at], at
        while time.time() < until:
            turn += 1
            a, b = names[turn % 4], names[(turn * 3 + at + 1) % 4]
            if a == b:
                continue
            (x, before), (y, after) = zk.get(a), zk.get(b)
            move = zk.transaction()
            move.check(a, before.version)
            move.set_data(a, b"%d" % (int(x) - 1), version=before.version)
            move.set_data(b, b"%d" % (int(y) + 1), version=after.version)
            move.create("%s/move-" % root, b"", sequence=True, ephemeral=True)
            results = move.commit()
            failed = [r for r in results if isinstance(r, Exception)]
            assert not failed or len(failed) == 4, results
            assert not failed or any(isinstance(r, BadVersionError) for r in failed), results
            moved[at] += not failed

    together([lambda at=at: work(at) for at in range(3)])
    total = sum(int(clients[0].get(name)[0]) for name in names)
    assert total == 400, "money was made or lost: %d" % total
    made = [n for n in clients[0].get_children(root) if n.startswith("move-")]
    assert len(made) == sum(moved) == len(set(made))
    done(clients)
    return sum(moved)


def main():
    recipes = [lock, election, barrier, queue, counter, party, lease, data_watch,
               children_watch, tree_cache, transactions]
    base = "/recipes-%s" % uuid.uuid4().hex
    for recipe in recipes:
        until = time.time() + SECONDS / len(recipes)
        times = recipe("%s/%s" % (base, recipe.__name__), until)
        print("%s: %d times" % (recipe.__name__, times), flush=True)
    print("all recipes work")


if __name__ == "__main__":
    main()
