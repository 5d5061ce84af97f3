"""What makes files of the tree out of its code: `make table`, `make docs`."""
