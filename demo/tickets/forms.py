"""What people may write."""

from __future__ import annotations

from django import forms

from demo.tickets.models import Comment, Ticket


class TicketForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new ticket."""

    class Meta:
        """Everything but the state, which starts open."""

        model = Ticket
        fields = ["title", "author", "text"]


class CommentForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new comment."""

    class Meta:
        """The ticket comes from the address."""

        model = Comment
        fields = ["author", "text"]
        widgets = {"text": forms.Textarea(attrs={"rows": 4})}
