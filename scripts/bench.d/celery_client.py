"""The same round trips as bench-tasks by the Python client: send_task().get(), serial or from threads.

    celery_client.py BROKER_URL TASK COUNT THREADS     prints the same line of JSON
"""
import concurrent.futures
import json
import sys
import time

from celery import Celery


def main(broker, task, count, threads):
    app = Celery("bench", broker=broker, backend=broker)

    def one(_):
        begin = time.perf_counter()
        assert app.send_task(task, args=[1, 2]).get(timeout=60) == 3
        return time.perf_counter() - begin

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(max(50, threads))))
        cpu, begin = time.process_time(), time.perf_counter()
        took = sorted(pool.map(one, range(count)))
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"tasks": count, "in_flight": threads, "cpu_us": round(cpu / count * 1e6, 1), "p50_us": round(took[count // 2] * 1e6),
                      "p99_us": round(took[count * 99 // 100] * 1e6), "per_second": round(count / seconds)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
