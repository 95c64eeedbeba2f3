"""Floor 1, Django: one mixin, and one package per ENGINE."""
