"""The figures that the README quotes. `make bench` measures them all, prints them and writes results.json."""
