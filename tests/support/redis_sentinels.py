"""A Redis master, its replica and three Sentinels, real ones on free ports: ended by their pids, without traces."""
import os
import subprocess

import redis

from celery_redis import SERVER, Redis
from http_text import wait_until
from programs import free_port

MASTER = "the-master"


class Group:
    def __init__(self, folder):
        self.folder = str(folder)
        self.servers = [Redis(self.folder, "--repl-diskless-sync-delay", "0")]
        self.servers.append(Redis(self.folder, "--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", str(self.servers[0].port)))
        self.sentinels = [self.sentinel(i) for i in range(3)]
        wait_until(lambda: all(self.state(i).get("num-other-sentinels") == 2 and self.state(i).get("num-slaves") == 1 for i in range(3)),
                   "the Sentinels to know each other")
        self.synced()

    def sentinel(self, i):
        path, port = os.path.join(self.folder, "sentinel-%d.conf" % i), free_port()
        with open(path, "w", encoding="utf-8") as file:
            file.write("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 2\nsentinel down-after-milliseconds %s 500\n"
                       "sentinel failover-timeout %s 3000\n" % (port, self.folder, MASTER, self.servers[0].port, MASTER, MASTER))
        process = subprocess.Popen([SERVER, path, "--sentinel"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return port, process

    def state(self, i):
        try:
            return redis.Redis(port=self.sentinels[i][0]).sentinel_master(MASTER)
        except redis.exceptions.RedisError:
            return {}

    def master(self):
        """By what it is itself."""
        for server in self.servers:
            if server.process.poll() is None and server.client().role()[0] == b"master":
                return server
        return None

    def synced(self):
        wait_until(lambda: self.master() and any(s is not self.master() and s.process.poll() is None and
                                                 s.client().info("replication").get("master_link_status") == "up"
                                                 and s.client().info("replication")["master_port"] == self.master().port
                                                 for s in self.servers), "the replica to be in sync")

    def kill_master(self):
        master = self.master()
        master.process.kill()
        master.process.wait()
        return master

    def failed_over(self, killed):
        wait_until(lambda: self.master() not in (None, killed), "the other server to be the master")

    def come_back(self, killed):
        killed.start()
        self.synced()

    def url(self, db, query=""):
        """As Celery writes it: the master's name is not in it."""
        return ";".join("sentinel://127.0.0.1:%d%s" % (port, "/%d" % db if i == 0 else "")
                        for i, (port, _) in enumerate(self.sentinels)) + query

    def stop(self):
        for _, process in self.sentinels:
            process.kill()
            process.wait()
        for server in self.servers:
            server.stop()
