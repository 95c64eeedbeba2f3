"""Tickets and their comments."""

from __future__ import annotations

from django.db import models


class Ticket(models.Model):
    """A ticket: a title, a text, an author, and whether it is closed."""

    title = models.CharField(max_length=120)
    author = models.CharField(max_length=60)
    text = models.TextField()
    closed = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        """The order: the newest ticket first."""

        ordering = ["-pk"]

    def __str__(self) -> str:
        """Return the title."""
        return self.title


class Comment(models.Model):
    """A comment on a ticket."""

    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="comments")
    author = models.CharField(max_length=60)
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        """The order: the oldest comment first."""

        ordering = ["pk"]

    def __str__(self) -> str:
        """Return the author and the begin of the text."""
        return f"{self.author}: {self.text[:40]}"
