"""What the Snakefile needs beside the configuration. Imports no torch."""
