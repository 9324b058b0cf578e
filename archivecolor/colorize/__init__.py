"""Films and stills through the generator: engine, recombination, threads, whole folders."""
