"""The command `tlhelpers`: a classifier of your own images, its report, and what a machine lacks."""
