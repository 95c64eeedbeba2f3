# mysite/tasks.py
import os

from django.db import connection

from mysite.celery import app


@app.task
def session():
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return {"session": cursor.fetchone()[0], "process": os.getpid()}
