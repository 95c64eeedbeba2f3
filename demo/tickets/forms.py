"""The forms for tickets and comments."""

from __future__ import annotations

from django import forms

from demo.tickets.models import Comment, Ticket


class TicketForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form for a new ticket."""

    class Meta:
        """The fields, without the state: a new ticket is open."""

        model = Ticket
        fields = ["title", "author", "text"]


class CommentForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form for a new comment."""

    class Meta:
        """The fields, without the ticket: the view takes that from the URL."""

        model = Comment
        fields = ["author", "text"]
        widgets = {"text": forms.Textarea(attrs={"rows": 4})}
