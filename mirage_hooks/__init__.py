"""Git hooks that turn `git pull` into a safe deploy of MirageOS unikernels."""
