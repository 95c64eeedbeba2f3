# mysite/management/commands/run_jobs.py
import json
import time

from django.core.management.base import BaseCommand
from django.db import connection

from poollife import PooledThreadPoolExecutor, auto_close_db, pool_stats


def job(number):
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s, CONNECTION_ID()", [number])
        return cursor.fetchone()


class Command(BaseCommand):
    help = "Look for work, do it in four threads, sleep, and look again."

    def add_arguments(self, parser):
        parser.add_argument("--rounds", type=int, help="end after so many; for ever if it is left out")

    def handle(self, *, rounds, **options):
        done = 0
        with PooledThreadPoolExecutor(4) as executor:
            while rounds is None or done < rounds:
                with auto_close_db():  # returns the command's own session before it sleeps
                    (number, session) = job(done)
                    answers = list(executor.map(job, range(number, number + 8)))
                done += 1
                sessions = sorted({session, *(each for _, each in answers)})
                self.stdout.write(json.dumps({"sessions": sessions, "out": pool_stats()["default"]["out"]}))
                time.sleep(0.1)
