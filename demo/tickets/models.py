"""A ticket and what people say about it."""

from __future__ import annotations

from django.db import models


class Ticket(models.Model):
    """Something somebody wants done."""

    title = models.CharField(max_length=120)
    author = models.CharField(max_length=60)
    text = models.TextField()
    closed = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Newest first."""

        ordering = ["-pk"]

    def __str__(self) -> str:
        """The title is the name."""
        return self.title


class Comment(models.Model):
    """One remark below a ticket."""

    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="comments")
    author = models.CharField(max_length=60)
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        """In the order they were said."""

        ordering = ["pk"]

    def __str__(self) -> str:
        """Enough to recognise it."""
        return f"{self.author}: {self.text[:40]}"
