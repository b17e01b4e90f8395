"""What git calls: one thin module a hook."""
